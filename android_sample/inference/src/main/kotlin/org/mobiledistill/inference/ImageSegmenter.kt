package org.mobiledistill.inference

import android.content.Context
import android.graphics.Bitmap
import android.media.Image
import java.io.Closeable
import org.mobiledistill.inference.core.Box
import org.mobiledistill.inference.core.ClassMap
import org.mobiledistill.inference.core.Model
import org.mobiledistill.inference.core.ModelManifest
import org.mobiledistill.inference.core.Overlay
import org.mobiledistill.inference.core.Pixels
import org.mobiledistill.inference.core.Segmenter
import org.mobiledistill.inference.core.Smoothing

/**
 * Says which class each pixel of a picture belongs to.
 *
 * Safe to use from any threads, which take turns; an inference takes milliseconds to tenths of a second, so not from the
 * main one. Must be closed.
 */
class ImageSegmenter(model: Model) : Closeable {
    private val segmenter = Segmenter(model)
    private val reader = PixelReader()

    /** What is known of the model. */
    val manifest: ModelManifest get() = segmenter.manifest

    /** The classes of a picture as people see it. */
    fun segment(bitmap: Bitmap): Segmentation = Segmentation(manifest, segmenter.newMap()).also { segment(bitmap, it) }

    /** The same into an answer that is used again. */
    @Synchronized
    fun segment(bitmap: Bitmap, into: Segmentation) = segment(reader.read(bitmap), null, into)

    /** An answer to be used again and again by a loop over camera frames. */
    fun newSegmentation(): Segmentation = Segmentation(manifest, segmenter.newMap())

    /**
     * The classes of a camera frame.
     *
     * @param frame of the format YUV_420_888; the caller closes it.
     * @param rotation degrees clockwise that make it upright: 0, 90, 180 or 270.
     * @param smoothing over the frames before it, if given; one for each camera that is open.
     */
    @Synchronized
    fun segment(frame: Image, rotation: Int, smoothing: Smoothing?, into: Segmentation) =
        segment(reader.read(frame, rotation), smoothing, into)

    private fun segment(pixels: Pixels, smoothing: Smoothing?, into: Segmentation) {
        synchronized(into) {
            segmenter.segment(pixels, into.map)
            if (into.map.scores.isNotEmpty()) smoothing?.smooth(into.map.scores)
            into.width = pixels.width
            into.height = pixels.height
        }
    }

    override fun close() = segmenter.close()

    companion object {
        /**
         * @param folder of the assets that `distill export android` wrote.
         * @throws org.mobiledistill.inference.core.ModelException with what is wrong.
         */
        fun fromAssets(
            context: Context,
            folder: String = ModelAssets.FOLDER,
            threads: Int = ModelAssets.THREADS,
        ): ImageSegmenter = ImageSegmenter(ModelAssets(context, folder).open(threads))
    }
}

/**
 * The classes of one picture's pixels. Safe to use from any threads.
 *
 * Where the model sees the centre of a picture alone, the pixels outside have no class and are not tinted.
 */
class Segmentation internal constructor(private val manifest: ModelManifest, internal val map: ClassMap) {
    private var overlay = Overlay(manifest.colors, manifest.clear)
    private var alpha = 0.5f
    private var mask = ByteArray(0)
    private var layer = IntArray(0)

    /** Of the picture, in pixels. */
    var width = 1
        internal set

    /** Of the picture, in pixels. */
    var height = 1
        internal set

    /** Share of the pixels of each class, 0..1, counted on a grid of 64 x 64. */
    @Synchronized
    fun shares(): FloatArray {
        val counted = sized(GRID * GRID)
        map.mask(GRID, GRID, counted)
        val found = FloatArray(manifest.labels.size)
        for (i in 0 until GRID * GRID) found[counted[i].toInt() and 255] += 1f / (GRID * GRID)
        return found
    }

    /** The picture with its classes in colour, as a new bitmap. */
    @Synchronized
    fun overlay(bitmap: Bitmap, alpha: Float = 0.5f): Bitmap {
        val pixels = PixelReader().read(bitmap)
        val box = Box.of(pixels.width, pixels.height, manifest.crop)
        val classes = sized(box.width * box.height)
        map.mask(box.width, box.height, classes)
        colored(alpha).tint(pixels, classes, box)
        return Bitmap.createBitmap(pixels.argb, pixels.width, pixels.height, Bitmap.Config.ARGB_8888)
    }

    /**
     * The colours alone on a transparent ground, to be drawn over a live picture: the part of it that the model saw.
     *
     * @param into any size; smaller ones than the picture's are faster.
     */
    @Synchronized
    fun layer(into: Bitmap, alpha: Float = 0.5f) {
        val classes = sized(into.width * into.height)
        if (layer.size != into.width * into.height) layer = IntArray(into.width * into.height)
        map.mask(into.width, into.height, classes)
        colored(alpha).layer(classes, into.width, into.height, layer)
        into.setPixels(layer, 0, into.width, 0, 0, into.width, into.height)
    }

    private fun colored(share: Float): Overlay {
        if (share != alpha) {
            overlay = Overlay(manifest.colors, manifest.clear, share)
            alpha = share
        }
        return overlay
    }

    private fun sized(size: Int): ByteArray = if (mask.size == size) mask else ByteArray(size).also { mask = it }

    private companion object {
        const val GRID = 64
    }
}
