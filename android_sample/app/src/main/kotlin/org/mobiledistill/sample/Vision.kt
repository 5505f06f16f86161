package org.mobiledistill.sample

import android.content.Context
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.RectF
import android.media.Image
import java.io.Closeable
import org.mobiledistill.inference.ImageClassifier
import org.mobiledistill.inference.ImageSegmenter
import org.mobiledistill.inference.ModelAssets
import org.mobiledistill.inference.Segmentation
import org.mobiledistill.inference.core.Box
import org.mobiledistill.inference.core.Crop
import org.mobiledistill.inference.core.Golden
import org.mobiledistill.inference.core.GoldenResult
import org.mobiledistill.inference.core.ModelManifest
import org.mobiledistill.inference.core.Pixels
import org.mobiledistill.inference.core.Smoothing
import org.mobiledistill.inference.core.Task

/** One line of an answer: a label, how much of it, and the colour it is drawn in (0xRRGGBB), or null. */
class Bar(val label: String, val share: Float, val color: Int?)

/**
 * What was seen in one picture or frame.
 *
 * @property picture what is shown in its place, or null where the picture itself is.
 * @property milliseconds from pixels to answer.
 */
class Seen(val bars: List<Bar>, val picture: Bitmap?, val milliseconds: Double)

/** The model of this app, whichever task it has. Safe to use from any threads, not from the main one. */
class Vision(context: Context) : Closeable {
    private val assets = ModelAssets(context)
    val manifest: ModelManifest = assets.manifest()
    private val classifier = if (manifest.task == Task.CLASSIFICATION) ImageClassifier.fromAssets(context) else null
    private val segmenter = if (manifest.task == Task.SEGMENTATION) ImageSegmenter.fromAssets(context) else null

    fun look(bitmap: Bitmap): Seen {
        val started = System.nanoTime()
        if (classifier != null) {
            val best = classifier.classify(bitmap)
            return Seen(best.map { Bar(it.label, it.score, null) }, null, since(started))
        }
        val segmentation = checkNotNull(segmenter).segment(bitmap)
        val milliseconds = since(started)
        return Seen(bars(segmentation), segmentation.overlay(bitmap), milliseconds)
    }

    /** What a loop over camera frames keeps. */
    inner class Live {
        private val smoothing = Smoothing()
        private val segmentation: Segmentation? = segmenter?.newSegmentation()

        // Two layers take turns: one is shown while the other is drawn.
        private val layers = if (segmenter == null) emptyList() else List(2) { Bitmap.createBitmap(SIDE, SIDE, Bitmap.Config.ARGB_8888) }
        private var frames = 0

        fun look(frame: Image, rotation: Int): Seen {
            val started = System.nanoTime()
            if (classifier != null) {
                val best = classifier.classify(frame, rotation, smoothing)
                return Seen(best.map { Bar(it.label, it.score, null) }, null, since(started))
            }
            val answer = checkNotNull(segmentation)
            checkNotNull(segmenter).segment(frame, rotation, smoothing, answer)
            val milliseconds = since(started)
            val layer = layers[frames++ % layers.size]
            answer.layer(layer)
            return Seen(bars(answer), layer, milliseconds)
        }
    }

    /** The part of an upright picture that the model sees, as shares of its sides. */
    fun seen(width: Int, height: Int): RectF {
        val box = Box.of(width, height, manifest.crop)
        if (manifest.crop == Crop.NONE) return RectF(0f, 0f, 1f, 1f)
        val left = box.left.toFloat() / width
        val top = box.top.toFloat() / height
        return RectF(left, top, left + box.width.toFloat() / width, top + box.height.toFloat() / height)
    }

    /** Show the golden pictures to the model and compare with what the computer that made it was answered. */
    fun checkGolden(): List<GoldenResult> = assets.open(ModelAssets.THREADS).use { Golden(it, assets, ::decoded).check() }

    override fun close() {
        classifier?.close()
        segmenter?.close()
    }

    private fun bars(segmentation: Segmentation): List<Bar> {
        val shares = segmentation.shares()
        return shares.indices.filter { shares[it] >= LEAST && it != manifest.clear }.sortedByDescending { shares[it] }.take(MOST)
            .map { Bar(manifest.labels[it], shares[it], manifest.colors[it]) }
    }

    private fun decoded(png: ByteArray): Pixels {
        val options = BitmapFactory.Options().apply {
            inScaled = false
            inPreferredConfig = Bitmap.Config.ARGB_8888
        }
        val bitmap = checkNotNull(BitmapFactory.decodeByteArray(png, 0, png.size, options)) { "a PNG that Android cannot read" }
        val pixels = Pixels(bitmap.width, bitmap.height)
        bitmap.getPixels(pixels.argb, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
        bitmap.recycle()
        return pixels
    }

    private fun since(started: Long) = (System.nanoTime() - started) / 1e6

    private companion object {
        const val SIDE = 192 // of the live mask; finer than the grids of the models, coarse enough for weak phones
        const val LEAST = 0.005f // of the picture: smaller specks are not listed
        const val MOST = 5
    }
}
