package org.mobiledistill.inference.core

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import kotlin.math.abs

/** Reads a file of the export by its name in the export's folder. */
fun interface Files {
    /** @throws ModelMissingException it is not there. */
    fun read(name: String): ByteArray
}

/** Makes pixels of a PNG: Android's and Java's decoders do. */
fun interface PngDecoder {
    /** @return upright and opaque. */
    fun decode(png: ByteArray): Pixels
}

/**
 * What came of one golden picture.
 *
 * @property pixelsDifferent bytes of the model's input that differ from Python's, of `pixels`; 0 is right.
 * @property difference largest distance of an answer from Python's.
 * @property maskDifferent pixels of the mask that differ from Python's.
 * @property problem in words, or null.
 */
class GoldenResult(
    val picture: String,
    val pixelsDifferent: Int,
    val difference: Double,
    val maskDifferent: Int,
    val problem: String?,
)

/**
 * The golden pictures of an export: real photos, and what Python made of them with the same model.
 *
 * They tell on the phone itself whether resizing, runtime and what is made of its answers are those that were measured.
 */
class Golden(private val model: Model, private val files: Files, private val decoder: PngDecoder) {
    private val manifest = model.manifest
    private val root = JsonObject.parse(NAME, String(files.read(NAME), Charsets.UTF_8))

    init {
        val version = root.int("golden_version")
        if (version != VERSION) {
            throw ManifestVersionException("$NAME has version $version, this library reads $VERSION: export again")
        }
        if (root.string("model_sha256") != manifest.sha256) {
            throw ModelChangedException("$NAME was written for another model than ${manifest.file}: export again")
        }
    }

    /** Show every picture to the model and compare. */
    fun check(): List<GoldenResult> = root.children("images").map { check(it) }

    private fun check(image: JsonObject): GoldenResult {
        val digests = image.child("sha256")
        fun read(key: String): ByteArray {
            val name = "$FOLDER/${image.string(key)}"
            val found = files.read(name)
            if (hex(MessageDigest.getInstance("SHA-256").digest(found)) != digests.string(image.string(key))) {
                throw ModelChangedException("$name is not the file that $NAME was written for: export again")
            }
            return found
        }
        val picture = image.string("picture")
        val shown = decoder.decode(read("picture"))
        val pixels = read("pixels")
        val input = directBuffer(pixels.size)
        Preprocessor(manifest.crop, manifest.imageSize).fill(shown, input)
        val pixelsDifferent = pixels.indices.count { input.get(it) != pixels[it] }
        val expected = read("answer")
        val answer = model.answer(pixels)
        val tolerance = root.number("tolerance")
        val difference = distance(answer, expected)
        val maskDifferent = if (image.has("mask")) masks(answer, shown, read("mask")) else 0
        val seen = Box.of(shown.width, shown.height, manifest.crop)
        val problem = when {
            pixelsDifferent > 0 -> "$pixelsDifferent of ${pixels.size} input bytes differ from Python's"
            !(difference <= tolerance) -> "an answer differs from Python's by $difference, more than $tolerance"
            maskDifferent > seen.width * seen.height * MASK_SHARE ->
                "$maskDifferent of ${seen.width * seen.height} pixels of the mask differ from Python's"
            else -> null
        }
        return GoldenResult(picture, pixelsDifferent, difference, maskDifferent, problem)
    }

    private fun masks(answer: ByteArray, shown: Pixels, png: ByteArray): Int {
        val map = ClassMap(manifest)
        map.fill(answer)
        val expected = decoder.decode(png)
        val mask = ByteArray(expected.argb.size)
        val seen = Box.of(shown.width, shown.height, manifest.crop)
        if (expected.width != seen.width || expected.height != seen.height) return mask.size
        map.mask(expected.width, expected.height, mask)
        return mask.indices.count { (mask[it].toInt() and 255) != (expected.argb[it] and 255) }
    }

    private fun distance(answer: ByteArray, expected: ByteArray): Double {
        if (answer.size != expected.size) return Double.POSITIVE_INFINITY
        if (manifest.answer == Answer.CLASS_MAP) {
            return answer.indices.maxOf { if (answer[it] == expected[it]) 0.0 else 1.0 }
        }
        val found = ByteBuffer.wrap(answer).order(ByteOrder.nativeOrder()).asFloatBuffer()
        val right = ByteBuffer.wrap(expected).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        var most = 0.0
        for (i in 0 until right.limit()) {
            val apart = abs(found.get(i).toDouble() - right.get(i))
            if (apart.isNaN()) return Double.NaN
            if (apart > most) most = apart
        }
        return most
    }

    companion object {
        /** Folder of the golden files within the export's. */
        const val FOLDER = "golden"

        /** Of the list of pictures. */
        const val NAME = "$FOLDER/golden.json"

        /** Version of the list's layout that this library reads. */
        const val VERSION = 1

        /** Of a mask's pixels that may differ where two classes are as good as equally likely. */
        private const val MASK_SHARE = 0.002
    }
}
