package org.mobiledistill.inference.core

import java.nio.ByteBuffer
import java.security.MessageDigest

/** What is asked of the model: one label an image, or one a pixel. */
enum class Task { CLASSIFICATION, SEGMENTATION }

/** What the numbers mean that the model gives. */
enum class Answer { PROBABILITIES, LOGITS, CLASS_MAP }

/** Which part of an image the model sees. */
enum class Crop {
    /** The largest centred square. */
    CENTER_SQUARE,

    /** The whole image, squashed to a square. */
    NONE,
}

/**
 * `model.json`: what `distill export android` says of the model beside it.
 *
 * Unknown keys are left alone; what is known is checked, so that a model is refused rather than fed wrongly.
 *
 * @property file name of the model, in the same folder.
 * @property sha256 of that file, 64 hex digits.
 * @property imageSize side S of the input, uint8 [1, S, S, 3].
 * @property outputShape [1, C], or [1, h, w, C] or [1, h, w] where pixels are answered.
 * @property thresholds by class, the least probability at which it counts as an answer; empty: all count.
 * @property colors of the classes in overlays, 0xRRGGBB, the same as in reports.
 * @property clear class that overlays leave untouched, or -1.
 * @property facts for people: name of a fact and its value.
 */
class ModelManifest private constructor(
    val task: Task,
    val file: String,
    val sha256: String,
    val bytes: Long,
    val imageSize: Int,
    val crop: Crop,
    val answer: Answer,
    val outputShape: IntArray,
    val labels: List<String>,
    val thresholds: FloatArray,
    val colors: IntArray,
    val clear: Int,
    val facts: List<Pair<String, String>>,
) {
    /** Numbers that the model gives for one image. */
    val outputSize: Int get() = outputShape.fold(1) { product, side -> product * side }

    /**
     * Compare the model with what stands here.
     *
     * @throws ModelChangedException it has another size or SHA-256.
     */
    fun check(model: ByteBuffer) {
        val size = model.remaining().toLong()
        if (size != bytes) throw ModelChangedException("$file has $size bytes, $NAME was written for $bytes$AGAIN")
        val digest = MessageDigest.getInstance("SHA-256")
        digest.update(model.duplicate())
        val found = hex(digest.digest())
        if (found != sha256) throw ModelChangedException("$file has SHA-256 $found, $NAME was written for $sha256$AGAIN")
    }

    companion object {
        /** Of the manifest, in the folder of the model. */
        const val NAME = "model.json"

        /** Version of the manifest's layout that this library reads. */
        const val VERSION = 1

        private const val AGAIN = "; run `distill export android` again"
        private const val LARGEST_SIDE = 4096

        /**
         * @throws ManifestException something is missing, has another type, or is not done by this library.
         * @throws ManifestVersionException it was written for another version.
         */
        fun parse(text: String): ModelManifest {
            val root = JsonObject.parse(NAME, text)
            // Files from before versions were counted have the same keys.
            val version = root.optional("manifest_version", JsonObject::int) ?: VERSION
            if (version != VERSION) {
                val way = if (version > VERSION) "take the library of the newer mobile-distill" else "export it again"
                throw ManifestVersionException("$NAME has version $version, this library reads $VERSION: $way")
            }
            val labels = root.strings("labels")
            if (labels.isEmpty()) root.wrong("labels", "at least one", labels)
            val task = root.choice("task", mapOf("classification" to Task.CLASSIFICATION, "segmentation" to Task.SEGMENTATION))
            val answer = root.choice(
                "output",
                mapOf("probabilities" to Answer.PROBABILITIES, "logits" to Answer.LOGITS, "class_map" to Answer.CLASS_MAP),
            )
            val crop = root.choice("resize", mapOf("center_crop" to Crop.CENTER_SQUARE, "squash" to Crop.NONE))
            if (root.string("format") != "tflite") root.wrong("format", "'tflite'", root.string("format"))
            root.optional("preprocessing", JsonObject::child)?.let { checkPreprocessing(it, crop) }
            val size = root.int("image_size")
            if (size !in 1..LARGEST_SIDE) root.wrong("image_size", "1 to $LARGEST_SIDE", size)
            val input = only(root, "inputs")
            val shape = input.ints("shape")
            if (!shape.contentEquals(intArrayOf(1, size, size, 3))) input.wrong("shape", "[1, $size, $size, 3]", shape.asList())
            if (input.string("dtype") != "uint8") input.wrong("dtype", "'uint8'", input.string("dtype"))
            val file = root.string("file")
            if (file.isEmpty() || file.contains('/')) root.wrong("file", "a name without '/'", file)
            val display = root.optional("display", JsonObject::child)
            return ModelManifest(
                task = task,
                file = file,
                sha256 = root.string("sha256"),
                bytes = root.number("bytes").toLong(),
                imageSize = size,
                crop = crop,
                answer = answer,
                outputShape = outputShape(root, task, answer, labels.size),
                labels = labels,
                thresholds = thresholds(root, labels),
                colors = display?.let { colors(it, labels.size) } ?: IntArray(labels.size),
                clear = display?.optional("clear", JsonObject::int) ?: -1,
                facts = facts(root),
            )
        }

        private fun outputShape(root: JsonObject, task: Task, answer: Answer, classes: Int): IntArray {
            val output = only(root, "outputs")
            val shape = output.ints("shape")
            val expected = when {
                task == Task.CLASSIFICATION -> "[1, $classes]"
                answer == Answer.CLASS_MAP -> "[1, h, w]"
                else -> "[1, h, w, $classes]"
            }
            val fits = shape.all { it > 0 } && shape.firstOrNull() == 1 && when {
                task == Task.CLASSIFICATION -> answer != Answer.CLASS_MAP && shape.size == 2 && shape[1] == classes
                answer == Answer.CLASS_MAP -> shape.size == 3
                else -> shape.size == 4 && shape[3] == classes
            }
            if (!fits) output.wrong("shape", expected, shape.asList())
            val dtype = if (answer == Answer.CLASS_MAP) "uint8" else "float32"
            if (output.string("dtype") != dtype) output.wrong("dtype", "'$dtype'", output.string("dtype"))
            return shape
        }

        /** Every word of `preprocessing` is something that [Preprocessor] does, or the model would be fed wrongly. */
        private fun checkPreprocessing(found: JsonObject, crop: Crop) {
            val done = mapOf(
                "orientation" to "upright", "color" to "RGB", "alpha" to "white", "filter" to "triangle", "antialias" to true,
                "half_pixel_centers" to true, "coefficient_bits" to 22L, "normalized_by" to "file",
                "crop" to if (crop == Crop.NONE) "none" else "center_square",
            )
            for ((key, value) in done) {
                if (found.entries().containsKey(key) && found.entries()[key] != value) {
                    found.wrong(key, "'$value', which is what this library does", found.entries()[key])
                }
            }
        }

        private fun thresholds(root: JsonObject, labels: List<String>): FloatArray {
            val found = root.optional("thresholds", JsonObject::child) ?: return FloatArray(0)
            return FloatArray(labels.size) { found.optional(labels[it], JsonObject::number)?.toFloat() ?: 0f }
        }

        private fun colors(display: JsonObject, classes: Int): IntArray {
            val found = display.lists("colors")
            if (found.size != classes) display.wrongCount("colors", classes, found.size)
            return IntArray(classes) { place ->
                val parts = found[place].map { (it as? Long)?.toInt() ?: -1 }
                if (parts.size != 3 || parts.any { it !in 0..255 }) {
                    display.wrong("colors[$place]", "[red, green, blue], each 0 to 255", found[place])
                }
                (parts[0] shl 16) or (parts[1] shl 8) or parts[2]
            }
        }

        private fun facts(root: JsonObject): List<Pair<String, String>> {
            val found = ArrayList<Pair<String, String>>()
            fun add(name: String, value: String?) {
                if (!value.isNullOrEmpty()) found.add(name to value)
            }
            add("description", root.optional("description", JsonObject::string))
            add("name", root.optional("name", JsonObject::string))
            add("task", root.string("task"))
            add("classes", root.strings("labels").size.toString())
            add("input", "${root.int("image_size")} × ${root.int("image_size")} RGB, ${root.string("resize")}")
            add("precision", root.optional("precision", JsonObject::string))
            add("size", oneDecimal(root.number("bytes") / 1e6) + " MB")
            root.optional("scores", JsonObject::child)?.let { scores ->
                for (split in listOf("test", "validation")) {
                    val score = scores.optional(split, JsonObject::child) ?: continue
                    val metric = root.optional("metric", JsonObject::child) ?: continue
                    val value = score.optional(metric.string("key"), JsonObject::child) ?: continue
                    add("$split ${metric.string("title")}", oneDecimal(value.number("value") * 100) + " %")
                }
            }
            root.optional("teacher", JsonObject::child)?.let { teacher ->
                add("teacher", teacher.optional("name", JsonObject::string))
                add("license of the teacher", teacher.optional("license", JsonObject::string))
            }
            add("made by", root.optional("mobile_distill", JsonObject::string)?.let { "mobile-distill $it" })
            add("SHA-256", root.string("sha256"))
            return found
        }

        private fun only(root: JsonObject, key: String): JsonObject {
            val all = root.children(key)
            if (all.size != 1) root.wrongCount(key, 1, all.size)
            return all.single()
        }

        private fun oneDecimal(value: Double): String {
            val tenths = Math.round(value * 10)
            return "${tenths / 10}.${tenths % 10}"
        }
    }
}

internal fun <T> JsonObject.choice(key: String, known: Map<String, T>): T {
    val found = string(key)
    return known[found] ?: wrong(key, known.keys.joinToString(" or ") { "'$it'" }, found)
}

/** Bytes as lower-case hex digits. */
internal fun hex(bytes: ByteArray): String {
    val digits = "0123456789abcdef"
    val text = StringBuilder(bytes.size * 2)
    for (byte in bytes) text.append(digits[(byte.toInt() shr 4) and 15]).append(digits[byte.toInt() and 15])
    return text.toString()
}
