package org.mobiledistill.inference.core

import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

/** Kotlin prepares pixels as Python does, to the byte. */
class ResamplerTest {
    @Test
    fun everyPixelOfEveryOddSizeIsPythons() {
        val cases = TestFiles.objects("resizing.json")
        assertTrue("${cases.size} cases", cases.size >= 50)
        cases.forEachIndexed { number, case ->
            val width = case.int("width")
            val height = case.int("height")
            val size = case.int("size")
            var stored = TestFiles.noise(width * height * 3, number)
            if (case.entries()["extremes"] == true) {
                stored = ByteArray(stored.size) { if ((stored[it].toInt() and 255) < 128) 0 else -1 }
            }
            val turn = Orientation.ofExif(case.int("orientation"))
            val image = if (turn.swaps) Pixels(height, width) else Pixels(width, height)
            turn.turn(TestFiles.opaque(stored), width, height, image)
            val crop = if (case.string("resize") == "squash") Crop.NONE else Crop.CENTER_SQUARE
            val input = directBuffer(size * size * 3)
            Preprocessor(crop, size).fill(image, input)
            val found = ByteArray(input.capacity()).also { input.get(it) }
            assertEquals("${width}x$height to $size, $crop, $turn", case.string("sha256"), TestFiles.digest(found))
        }
    }

    @Test
    fun transparencyIsLaidOverWhite() {
        val case = TestFiles.objects("transparency.json").single()
        val rgba = TestFiles.noise(case.int("width") * case.int("height") * 4, case.int("seed"))
        val argb = IntArray(rgba.size / 4) {
            val alpha = it / case.int("width")
            (alpha shl 24) or ((rgba[4 * it].toInt() and 255) shl 16) or ((rgba[4 * it + 1].toInt() and 255) shl 8) or
                (rgba[4 * it + 2].toInt() and 255)
        }
        val image = Pixels(case.int("width"), case.int("height"), argb)
        image.layOverWhite()
        assertEquals(case.string("sha256"), TestFiles.digest(TestFiles.rgb(image.argb)))
        assertTrue(image.argb.all { it ushr 24 == 255 })
    }

    @Test
    fun cameraFramesAreTurnedAndConverted() {
        val frame = CameraFrame()
        for (case in TestFiles.objects("frames.json")) {
            val width = case.int("width")
            val height = case.int("height")
            val pad = case.int("pad")
            val number = case.int("number")
            val luma = padded(TestFiles.noise(width * height, 50 + number), width, pad, 1)
            // Colour samples of both planes alternate in memory, as in most phones' frames.
            val blue = padded(TestFiles.noise(width * height / 4, 60 + number), width / 2, pad, 2)
            val red = padded(TestFiles.noise(width * height / 4, 70 + number), width / 2, pad, 2)
            val turn = Orientation.ofRotation(case.int("degrees"))
            val image = if (turn.swaps) Pixels(height, width) else Pixels(width, height)
            frame.convert(luma, blue, red, width, height, turn, image)
            assertEquals("$width x $height, $turn", case.string("sha256"), TestFiles.digest(TestFiles.rgb(image.argb)))
        }
    }

    private fun padded(samples: ByteArray, width: Int, pad: Int, step: Int): Plane {
        val stride = width * step + pad
        val rows = samples.size / width
        // The last row of a plane ends with its last sample.
        val bytes = directBuffer((rows - 1) * stride + (width - 1) * step + 1)
        for (i in samples.indices) bytes.put(i / width * stride + i % width * step, samples[i])
        return Plane(bytes, stride, step)
    }
}
