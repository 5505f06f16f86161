package org.mobiledistill.inference.core

import java.io.ByteArrayInputStream
import org.junit.Assert.assertEquals
import org.junit.Test

/** Photos are turned as their EXIF data says, and damaged data harms nobody. */
class ExifTest {
    @Test
    fun allOrientationsAreRead() {
        for (case in TestFiles.objects("exif.json")) {
            val expected = Orientation.ofExif(case.int("orientation"))
            assertEquals("${case.entries()}", expected, read(jpeg(bytes(case.string("app1")))))
        }
    }

    @Test
    fun whateverElseIsUpright() {
        val whole = jpeg(bytes(TestFiles.objects("exif.json").last().string("app1")))
        for (length in whole.indices) read(whole.copyOf(length))
        for (place in 2 until whole.size) {
            for (bit in 0..7) read(whole.copyOf().also { it[place] = (it[place].toInt() xor (1 shl bit)).toByte() })
        }
        assertEquals(Orientation.UPRIGHT, read(ByteArray(0)))
        assertEquals(Orientation.UPRIGHT, read("\u0089PNG".toByteArray()))
        assertEquals(Orientation.UPRIGHT, read(byteArrayOf(-1, 0xD8.toByte(), -1, 0xDA.toByte(), 0, 2)))
    }

    private fun read(bytes: ByteArray) = Exif.orientation(ByteArrayInputStream(bytes))

    /** A JPEG's start with a segment before the one that is looked for. */
    private fun jpeg(app1: ByteArray): ByteArray {
        fun segment(marker: Int, content: ByteArray): ByteArray {
            val length = content.size + 2
            return byteArrayOf(-1, marker.toByte(), (length shr 8).toByte(), length.toByte()) + content
        }
        return byteArrayOf(-1, 0xD8.toByte()) + segment(0xE0, "JFIF\u0000".toByteArray()) + byteArrayOf(-1) + segment(0xE1, app1)
    }

    private fun bytes(digits: String) = ByteArray(digits.length / 2) { digits.substring(2 * it, 2 * it + 2).toInt(16).toByte() }
}
