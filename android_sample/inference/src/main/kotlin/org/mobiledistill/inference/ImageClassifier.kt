package org.mobiledistill.inference

import android.content.Context
import android.graphics.Bitmap
import android.media.Image
import java.io.Closeable
import org.mobiledistill.inference.core.Category
import org.mobiledistill.inference.core.Classifier
import org.mobiledistill.inference.core.Model
import org.mobiledistill.inference.core.ModelManifest
import org.mobiledistill.inference.core.Smoothing

/**
 * Says what is in a picture.
 *
 * Safe to use from any threads, which take turns; an inference takes milliseconds to tenths of a second, so not from the
 * main one. Must be closed.
 */
class ImageClassifier(model: Model) : Closeable {
    private val classifier = Classifier(model)
    private val reader = PixelReader()
    private val scores = FloatArray(classifier.classes)

    /** What is known of the model. */
    val manifest: ModelManifest get() = classifier.manifest

    /** The best labels of a picture as people see it, best first. */
    @Synchronized
    fun classify(bitmap: Bitmap, count: Int = 5): List<Category> {
        classifier.scores(reader.read(bitmap), scores)
        return classifier.best(scores, count)
    }

    /**
     * The best labels of a camera frame.
     *
     * @param frame of the format YUV_420_888; the caller closes it.
     * @param rotation degrees clockwise that make it upright: 0, 90, 180 or 270.
     * @param smoothing over the frames before it, if given; one for each camera that is open.
     */
    @Synchronized
    fun classify(frame: Image, rotation: Int, smoothing: Smoothing? = null, count: Int = 5): List<Category> {
        classifier.scores(reader.read(frame, rotation), scores)
        smoothing?.smooth(scores)
        return classifier.best(scores, count)
    }

    override fun close() = classifier.close()

    companion object {
        /**
         * @param folder of the assets that `distill export android` wrote.
         * @throws org.mobiledistill.inference.core.ModelException with what is wrong.
         */
        fun fromAssets(
            context: Context,
            folder: String = ModelAssets.FOLDER,
            threads: Int = ModelAssets.THREADS,
        ): ImageClassifier = ImageClassifier(ModelAssets(context, folder).open(threads))
    }
}
