package org.mobiledistill.inference.core

import java.io.InputStream

/** The one thing asked of a photo's EXIF data: how it must be turned. Android 21 to 23 reads it of files alone. */
object Exif {
    private const val START_OF_IMAGE = 0xFFD8
    private const val START_OF_SCAN = 0xDA
    private const val APPLICATION_1 = 0xE1
    private const val ORIENTATION = 0x0112
    private const val SHORT = 3
    private val NAME = byteArrayOf('E'.code.toByte(), 'x'.code.toByte(), 'i'.code.toByte(), 'f'.code.toByte(), 0, 0)

    /** Of a JPEG, from its start; anything else, and damaged data, counts as upright. Reads no further than needed. */
    fun orientation(stream: InputStream): Orientation {
        if (two(stream) != START_OF_IMAGE) return Orientation.UPRIGHT
        while (true) {
            var marker = two(stream)
            while (marker == 0xFFFF) marker = 0xFF00 or stream.read() // fill bytes
            if (marker < 0xFF00 || marker and 255 == START_OF_SCAN) return Orientation.UPRIGHT
            val length = two(stream) - 2
            if (length < 0) return Orientation.UPRIGHT
            val segment = ByteArray(length)
            var read = 0
            while (read < length) {
                val more = stream.read(segment, read, length - read)
                if (more < 0) return Orientation.UPRIGHT
                read += more
            }
            if (marker and 255 == APPLICATION_1 && starts(segment)) return ofTiff(segment, NAME.size)
        }
    }

    private fun starts(segment: ByteArray) = segment.size >= NAME.size + 8 && NAME.indices.all { segment[it] == NAME[it] }

    private fun ofTiff(bytes: ByteArray, base: Int): Orientation {
        val little = bytes[base] == 'I'.code.toByte()
        fun at(place: Int, count: Int): Int {
            if (place < 0 || place + count > bytes.size) return -1
            var value = 0
            for (i in 0 until count) {
                val byte = bytes[place + if (little) count - 1 - i else i].toInt() and 255
                value = (value shl 8) or byte
            }
            return value
        }
        val offset = at(base + 4, 4)
        if (offset < 0 || offset > bytes.size) return Orientation.UPRIGHT
        val entries = at(base + offset, 2)
        for (entry in 0 until entries) {
            val start = base + offset + 2 + 12 * entry
            if (at(start, 2) == ORIENTATION && at(start + 2, 2) == SHORT) return Orientation.ofExif(at(start + 8, 2))
        }
        return Orientation.UPRIGHT
    }

    private fun two(stream: InputStream): Int {
        val high = stream.read()
        val low = stream.read()
        return if (low < 0) -1 else (high shl 8) or low
    }
}
