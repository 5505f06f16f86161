package org.mobiledistill.inference.core

import java.io.File
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

/** What is made of the model's numbers: rankings, masks, overlays, running means. */
class AnswersTest {
    @Test
    fun theBestAreRankedAsInPython() {
        for (case in TestFiles.objects("rankings.json")) {
            assertArrayEquals(case.ints("best"), largest(floats(case.entries()["scores"]), 5))
        }
    }

    @Test
    fun noNumberComesLast() {
        assertArrayEquals(intArrayOf(2, 1, 0), largest(floatArrayOf(Float.NaN, 1f, 2f), 3))
        assertArrayEquals(intArrayOf(), largest(floatArrayOf(1f), 0))
    }

    @Test
    fun logitsBecomeProbabilities() {
        val values = floatArrayOf(1000f, 1000f, -1000f)
        softmax(values)
        assertArrayEquals(floatArrayOf(0.5f, 0.5f, 0f), values, 0f)
    }

    @Test
    fun masksAreEnlargedAsInPython() {
        for (case in TestFiles.objects("masks.json")) {
            val shape = listOf(1, case.int("rows"), case.int("columns"), case.int("classes"))
            val map = ClassMap(Manifests.segmenter(shape, "logits"))
            val noise = TestFiles.noise(map.scores.size, 80 + case.int("number"))
            for (i in noise.indices) map.scores[i] = (noise[i].toInt() and 255) / 8f
            val mask = ByteArray(case.int("width") * case.int("height"))
            map.mask(case.int("width"), case.int("height"), mask)
            assertEquals("${case.entries()}", case.string("sha256"), TestFiles.digest(mask))
        }
    }

    @Test
    fun aClassMapGivesEachPixelTheClassUnderItsCentre() {
        val map = ClassMap(Manifests.segmenter(listOf(1, 2, 2), "class_map"))
        map.fill(byteArrayOf(0, 1, 2, 0))
        val mask = ByteArray(12)
        map.mask(4, 3, mask)
        assertArrayEquals(byteArrayOf(0, 0, 1, 1, 2, 2, 0, 0, 2, 2, 0, 0), mask)
    }

    @Test
    fun overlaysAreDrawnAsInPython() {
        val colors = TestFiles.rows("colors.json").map { rgb ->
            val (red, green, blue) = (rgb as List<*>).map { (it as Long).toInt() }
            (red shl 16) or (green shl 8) or blue
        }.toIntArray()
        val grey = TestFiles.decode(TestFiles.bytes("mask.png"))
        val mask = ByteArray(grey.argb.size) { grey.argb[it].toByte() }
        val drawn = mapOf("overlay" to Overlay(colors, clear = 0), "overlay_plain" to Overlay(colors, -1, 0.3f, outline = false))
        for ((name, overlay) in drawn) {
            val scene = TestFiles.decode(TestFiles.bytes("scene.png"))
            overlay.tint(scene, mask, Box(0, 0, scene.width, scene.height))
            System.getProperty("distill.pictures")?.let { TestFiles.encode(scene, File(it, "$name.png")) }
            val expected = TestFiles.decode(TestFiles.bytes("$name.png"))
            assertArrayEquals(name, TestFiles.rgb(expected.argb), TestFiles.rgb(scene.argb))
        }
    }

    @Test
    fun anOverlayTintsTheBoxAlone() {
        val image = Pixels(4, 3, IntArray(12) { -1 })
        Overlay(intArrayOf(0, 0xFF0000), clear = 0, outline = false).tint(image, byteArrayOf(0, 1, 1, 0), Box(1, 1, 2, 2))
        val tinted = image.argb.indices.filter { image.argb[it] != -1 }
        assertEquals(listOf(6, 9), tinted)
        assertEquals(0xFFFF8080.toInt(), image.argb[6])
    }

    @Test
    fun aLayerIsTransparentWhereTheClearClassIs() {
        val layer = IntArray(3)
        Overlay(intArrayOf(0, 0x102030), clear = 0).layer(byteArrayOf(0, 1, 1), 3, 1, layer)
        assertArrayEquals(intArrayOf(0, 0xFF102030.toInt(), 0x80102030.toInt()), layer)
    }

    @Test
    fun aClassWithoutAColourIsAnError() {
        val image = Pixels(1, 1)
        val error = assertThrows(IllegalArgumentException::class.java) {
            Overlay(intArrayOf(0), -1).tint(image, byteArrayOf(7), Box(0, 0, 1, 1))
        }
        assertEquals("the mask holds class 7, there are 1 colours", error.message)
    }

    @Test
    fun framesAreAveragedAsInPython() {
        val case = TestFiles.objects("smoothing.json").single()
        val smoothing = Smoothing(case.number("share").toFloat())
        val means = case.lists("means")
        case.lists("frames").forEachIndexed { n, frame ->
            val values = floats(frame)
            smoothing.smooth(values)
            assertArrayEquals("frame $n", floats(means[n]), values, 0f)
        }
        smoothing.reset()
        val fresh = floatArrayOf(9f)
        smoothing.smooth(fresh)
        assertEquals(9f, fresh[0])
        assertThrows(IllegalArgumentException::class.java) { Smoothing(0f) }
    }

    @Test
    fun answersBelowTheThresholdOfTheirClassAreLeftOut() {
        val manifest = Manifests.classifier { it["thresholds"] = mapOf("dog" to 0.5) }
        Classifier(Model(manifest, FakeEngine(manifest))).use { classifier ->
            assertEquals(listOf("cat"), classifier.best(floatArrayOf(0.4f, 0.45f, 0.15f), 2).map { it.label })
            assertTrue(classifier.best(floatArrayOf(0.1f, 0.6f, 0.3f), 1).single() == Category(1, "dog", 0.6f))
            assertFalse(classifier.best(floatArrayOf(0.1f, 0.6f, 0.3f), 9).isEmpty())
        }
    }

    private fun floats(values: Any?): FloatArray = (values as List<*>).map { (it as Number).toFloat() }.toFloatArray()
}
