package org.mobiledistill.inference.core

import java.nio.ByteBuffer
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

/** `model.json` is read strictly, and what is wrong with it is said. */
class ManifestTest {
    @Test
    fun whatStandsInItIsRead() {
        val found = Manifests.classifier()
        assertEquals(Task.CLASSIFICATION, found.task)
        assertEquals(Crop.NONE, found.crop)
        assertEquals(listOf("cat", "dog", "owl"), found.labels)
        assertArrayEquals(intArrayOf(0, 0xE11E3C, 0x010203), found.colors)
        assertEquals(-1, found.clear)
        val facts = found.facts.toMap()
        assertEquals("91.5 %", facts["test accuracy"])
        assertEquals("timm/convnext", facts["teacher"])
    }

    @Test
    fun filesFromBeforeVersionsAreRead() {
        assertEquals(4, Manifests.classifier { it.remove("manifest_version"); it.remove("preprocessing") }.imageSize)
    }

    @Test
    fun anotherVersionIsRefused() {
        val newer = assertThrows(ManifestVersionException::class.java) { Manifests.classifier { it["manifest_version"] = 2 } }
        assertEquals("model.json has version 2, this library reads 1: take the library of the newer mobile-distill", newer.message)
        val older = assertThrows(ManifestVersionException::class.java) { Manifests.classifier { it["manifest_version"] = 0 } }
        assertEquals("model.json has version 0, this library reads 1: export it again", older.message)
    }

    @Test
    fun everyMistakeNamesItsKey() {
        fun expect(message: String, change: (MutableMap<String, Any?>) -> Unit) {
            val error = assertThrows(ManifestException::class.java) { Manifests.classifier(change) }
            assertEquals("model.json: $message", error.message)
        }
        expect("labels: found nothing, expected a list") { it.remove("labels") }
        expect("labels[1]: found 7, expected a string") { it["labels"] = listOf("cat", 7) }
        expect("labels: found [], expected at least one") { it["labels"] = emptyList<String>() }
        expect("task: found 'depth', expected 'classification' or 'segmentation'") { it["task"] = "depth" }
        expect("format: found 'onnx', expected 'tflite'") { it["format"] = "onnx" }
        expect("image_size: found '4', expected a whole number") { it["image_size"] = "4" }
        expect("image_size: found 0, expected 1 to 4096") { it["image_size"] = 0 }
        expect("inputs[0].shape: found [1, 4, 4, 3], expected [1, 5, 5, 3]") { it["image_size"] = 5 }
        expect("outputs: found 0 values, expected 1") { it["outputs"] = emptyList<Any>() }
        expect("outputs[0].shape: found [1, 3], expected [1, 2]") { it["labels"] = listOf("a", "b"); it.remove("display") }
        expect("file: found '../x', expected a name without '/'") { it["file"] = "../x" }
        expect("display.colors: found 1 values, expected 3") { it["display"] = mapOf("colors" to listOf(listOf(1, 2, 3))) }
        expect("display.colors[0]: found [1, 2, 256], expected [red, green, blue], each 0 to 255") {
            it["display"] = mapOf("colors" to listOf(listOf(1, 2, 256), listOf(1, 2, 3), listOf(1, 2, 3)))
        }
        expect("preprocessing.filter: found 'cubic', expected 'triangle', which is what this library does") {
            it["preprocessing"] = mapOf("filter" to "cubic")
        }
        expect("preprocessing.crop: found 'center_square', expected 'none', which is what this library does") {
            it["preprocessing"] = mapOf("crop" to "center_square")
        }
    }

    @Test
    fun anotherModelIsRefused() {
        val manifest = Manifests.classifier()
        manifest.check(ByteBuffer.wrap("abc".toByteArray()))
        val shorter = assertThrows(ModelChangedException::class.java) { manifest.check(ByteBuffer.wrap("ab".toByteArray())) }
        assertEquals(
            "student.int8.tflite has 2 bytes, model.json was written for 3; run `distill export android` again",
            shorter.message,
        )
        val other = assertThrows(ModelChangedException::class.java) { manifest.check(ByteBuffer.wrap("abd".toByteArray())) }
        assertTrue(other.message!!.startsWith("student.int8.tflite has SHA-256 a52d159f"))
    }

    @Test
    fun jsonIsReadStrictly() {
        assertEquals(
            mapOf("a" to listOf(1L, -2.5, 1e300, true, null), "ü" to "\"\\/\b\n\u20AC😀"),
            Json.parse(" {\"a\": [1, -2.5, 1e300, true, null],\n\"\\u00fc\": \"\\\"\\\\\\/\\b\\n\\u20aC😀\"}\t"),
        )
        assertEquals(9.3e18, Json.parse("9300000000000000000"))
        for (wrong in listOf(
            "", "{", "[1,]", "{\"a\":1,}", "{\"a\" 1}", "{a:1}", "01", "1.", "+1", ".5", "1e", "-", "nul", "'a'", "\"\n\"", "\"\\x\"",
            "\"\\u12g4\"", "\"\\u+123\"", "\"a", "[1] 2", "{\"a\":1,\"a\":2}", "NaN", "[".repeat(70) + "]".repeat(70),
        )) {
            assertThrows(wrong, JsonException::class.java) { Json.parse(wrong) }
        }
        val error = assertThrows(JsonException::class.java) { Json.parse("{\"a\": 1,\n \"a\": 2}") }
        assertEquals("line 2, column 6: the key 'a' occurs twice", error.message)
    }

    @Test
    fun whatIsWrittenCanBeRead() {
        val value = mapOf("a" to listOf(1L, 2.5, "x\"\\\n\u0001ü"), "b" to emptyList<Any>(), "c" to mapOf("d" to null))
        assertEquals(value, Json.parse(Json.write(value)))
        assertThrows(IllegalArgumentException::class.java) { Json.write(Double.NaN) }
    }
}
