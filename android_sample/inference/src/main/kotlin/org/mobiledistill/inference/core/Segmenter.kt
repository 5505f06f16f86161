package org.mobiledistill.inference.core

import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.ln
import kotlin.math.max
import kotlin.math.min

/**
 * Pictures in, a class for each pixel out. Owns its model; safe to use from any threads, which take turns.
 *
 * @throws WrongTaskException the model says one label an image; it is closed then.
 */
class Segmenter(private val model: Model) : AutoCloseable {
    val manifest: ModelManifest = model.manifest

    init {
        if (manifest.task != Task.SEGMENTATION) {
            model.close()
            throw WrongTaskException("${manifest.file} says one label an image: use a classifier")
        }
    }

    /** A map of the right size, to be filled again and again by a loop over camera frames. */
    fun newMap(): ClassMap = ClassMap(manifest)

    /**
     * @param image upright and opaque.
     * @param into gets the answer.
     */
    fun segment(image: Pixels, into: ClassMap) {
        if (manifest.answer == Answer.CLASS_MAP) {
            model.answer(image, into.classes)
        } else {
            model.answer(image, into.scores)
            into.settle()
        }
    }

    override fun close() = model.close()
}

/**
 * What the model answered about the cells of its own grid, and how that becomes pixels.
 *
 * Not for several threads at once. Drawing masks of one size after another allocates nothing.
 */
class ClassMap(private val manifest: ModelManifest) {
    private val height = manifest.outputShape[1]
    private val width = manifest.outputShape[2]
    private val count = manifest.labels.size
    private val dense = manifest.answer == Answer.CLASS_MAP

    /** Logits or logarithms of probabilities [h, w, C]; empty for a class map. Smooth them by [Smoothing] if you like. */
    val scores = FloatArray(if (dense) 0 else height * width * count)
    internal val classes = ByteArray(if (dense) height * width else 0)
    private var down: Lines? = null
    private var across: Lines? = null
    private var line = FloatArray(0)

    /** What the model gave becomes what is enlarged: masks made of log-probabilities are those of the logits. */
    internal fun settle() {
        if (manifest.answer == Answer.PROBABILITIES) {
            for (i in scores.indices) scores[i] = ln(max(scores[i], LEAST).toDouble()).toFloat()
        }
    }

    /** Take raw bytes of the model's output in native order, as in golden vectors. */
    fun fill(answer: ByteArray) {
        if (dense) {
            answer.copyInto(classes)
        } else {
            ByteBuffer.wrap(answer).order(ByteOrder.nativeOrder()).asFloatBuffer().get(scores)
            settle()
        }
    }

    /**
     * The class of each pixel of the part of the image that the model saw: scores are enlarged, the largest wins; of
     * equal ones the class that stands first.
     *
     * @param into width * height classes, row by row.
     */
    fun mask(width: Int, height: Int, into: ByteArray) {
        require(width > 0 && height > 0 && into.size >= width * height) { "${into.size} bytes for $width x $height" }
        if (dense) nearest(width, height, into) else enlarge(width, height, into)
    }

    private fun nearest(wide: Int, high: Int, into: ByteArray) {
        var to = 0
        for (y in 0 until high) {
            val row = ((2L * y + 1) * height / (2L * high)).toInt() * width
            for (x in 0 until wide) into[to++] = classes[row + ((2L * x + 1) * width / (2L * wide)).toInt()]
        }
    }

    private fun enlarge(wide: Int, high: Int, into: ByteArray) {
        val rows = down?.takeIf { it.wanted == high } ?: Lines(height, high).also { down = it }
        val columns = across?.takeIf { it.wanted == wide } ?: Lines(width, wide).also { across = it }
        if (line.isEmpty()) line = FloatArray(width * count)
        val length = width * count
        var to = 0
        for (y in 0 until high) {
            line.fill(0f)
            for (tap in 0 until rows.count[y]) {
                val weight = rows.weights[y * rows.most + tap]
                val from = (rows.first[y] + tap) * length
                for (i in 0 until length) line[i] += weight * scores[from + i]
            }
            for (x in 0 until wide) {
                val start = columns.first[x] * count
                val taps = columns.count[x]
                val weights = x * columns.most
                var best = 0
                var most = Float.NEGATIVE_INFINITY
                for (place in 0 until count) {
                    var sum = 0f
                    for (tap in 0 until taps) sum += columns.weights[weights + tap] * line[start + tap * count + place]
                    if (sum > most) {
                        most = sum
                        best = place
                    }
                }
                into[to++] = best.toByte()
            }
        }
    }

    /** What each of `wanted` cells along one side takes from the model's: bilinear, filtered where it shrinks. */
    private class Lines(cells: Int, val wanted: Int) {
        private val step = cells.toDouble() / wanted
        private val reach = max(1.0, step)

        /** Weights of one cell, at most. */
        val most = min(cells, Math.ceil(2 * reach).toInt() + 1)
        val first = IntArray(wanted)
        val count = IntArray(wanted)
        val weights = FloatArray(wanted * most)

        init {
            for (i in 0 until wanted) {
                val center = (i + 0.5) * step
                // Beyond the centres of the outer cells values stay as they are.
                val at = if (step <= 1.0) min(max(center, 0.5), cells - 0.5) else center
                var sum = 0.0
                var taps = 0
                for (cell in max(0, (at - reach - 0.5).toInt())..min(cells - 1, (at + reach).toInt())) {
                    val weight = 1.0 - Math.abs(cell + 0.5 - at) / reach
                    if (weight > 0.0) {
                        if (taps == 0) first[i] = cell
                        taps++
                        sum += weight
                    }
                }
                count[i] = taps
                for (tap in 0 until taps) {
                    val weight = max(0.0, 1.0 - Math.abs(first[i] + tap + 0.5 - at) / reach)
                    weights[i * most + tap] = (weight / sum).toFloat()
                }
            }
        }
    }

    private companion object {
        const val LEAST = 1e-12f // probabilities of zero become this before the logarithm, as in Python
    }
}
