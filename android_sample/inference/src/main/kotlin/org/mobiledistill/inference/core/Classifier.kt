package org.mobiledistill.inference.core

import kotlin.math.exp

/**
 * One answer about a picture.
 *
 * @property index place of the class in `labels.txt`.
 * @property score probability, 0..1.
 */
data class Category(val index: Int, val label: String, val score: Float)

/**
 * Pictures in, labels out. Owns its model; safe to use from any threads, which take turns.
 *
 * @throws WrongTaskException the model answers pixels; it is closed then.
 */
class Classifier(private val model: Model) : AutoCloseable {
    val manifest: ModelManifest = model.manifest
    private val logits = manifest.answer == Answer.LOGITS

    init {
        if (manifest.task != Task.CLASSIFICATION) {
            model.close()
            throw WrongTaskException("${manifest.file} says a class for each pixel: use a segmenter")
        }
    }

    /** As many scores as there are labels. */
    val classes: Int get() = manifest.labels.size

    /**
     * Probabilities of all classes, into an array of the caller's: what a loop over camera frames calls.
     *
     * @param image upright and opaque.
     * @param into [classes] numbers.
     */
    fun scores(image: Pixels, into: FloatArray) {
        model.answer(image, into)
        if (logits) softmax(into)
    }

    /**
     * The best labels, best first; of equal scores the class that stands first. Those below the threshold of their class
     * in `model.json` are left out.
     *
     * @param scores of all classes.
     */
    fun best(scores: FloatArray, count: Int = 5): List<Category> {
        val found = ArrayList<Category>(minOf(count, classes))
        for (index in largest(scores, count)) {
            if (scores[index] >= (if (manifest.thresholds.isEmpty()) 0f else manifest.thresholds[index])) {
                found.add(Category(index, manifest.labels[index], scores[index]))
            }
        }
        return found
    }

    /** [scores] and [best] in one. */
    fun classify(image: Pixels, count: Int = 5): List<Category> = best(FloatArray(classes).also { scores(image, it) }, count)

    override fun close() = model.close()
}

/** Places of the largest numbers, largest first; of equal ones the first comes first. NaN comes last. */
fun largest(scores: FloatArray, count: Int): IntArray {
    val found = IntArray(minOf(maxOf(count, 0), scores.size))
    val taken = BooleanArray(scores.size)
    for (place in found.indices) {
        var best = -1
        for (i in scores.indices) {
            if (!taken[i] && (best < 0 || scores[i] > scores[best] || (scores[best].isNaN() && !scores[i].isNaN()))) best = i
        }
        taken[best] = true
        found[place] = best
    }
    return found
}

/** Logits to probabilities, in place. */
fun softmax(values: FloatArray) {
    var most = Float.NEGATIVE_INFINITY
    for (value in values) most = maxOf(most, value)
    var sum = 0.0
    for (i in values.indices) {
        val power = exp((values[i] - most).toDouble())
        values[i] = power.toFloat()
        sum += power
    }
    for (i in values.indices) values[i] = (values[i] / sum).toFloat()
}

/**
 * An exponential moving average over frames, so that labels and masks do not flicker.
 *
 * After a scene has changed, its weight is 1 - (1 - [share])^n after n frames. Not for several threads at once.
 *
 * @param share of the newest frame, above 0, at most 1: 1 does not smooth.
 */
class Smoothing(private val share: Float = 0.4f) {
    private var mean: FloatArray? = null

    init {
        require(share > 0f && share <= 1f) { "a share of $share, expected above 0 and at most 1" }
    }

    /** Put a frame's numbers in, get the average out, in the same array. */
    fun smooth(values: FloatArray) {
        val before = mean
        if (before == null || before.size != values.size) {
            mean = values.copyOf()
            return
        }
        for (i in values.indices) {
            before[i] += share * (values[i] - before[i])
            values[i] = before[i]
        }
    }

    /** Forget all frames, as when another camera is opened. */
    fun reset() {
        mean = null
    }
}
