package org.mobiledistill.inference.core

import java.nio.ByteBuffer

/**
 * One plane of a camera frame as Android's `Image.Plane` gives it.
 *
 * @property rowStride bytes from one row to the next.
 * @property pixelStride bytes from one sample to the next.
 */
class Plane(val bytes: ByteBuffer, val rowStride: Int, val pixelStride: Int)

/**
 * Frames of a camera (YUV_420_888) to upright pictures: full range, the matrix of JPEG (ITU-T T.871), which is what
 * training images were decoded with. Colour samples are repeated for their four pixels. Not for several threads at once.
 */
class CameraFrame {
    private var lumas = ByteArray(0)
    private var blues = ByteArray(0)
    private var reds = ByteArray(0)

    /**
     * @param width of the frame as it comes from the sensor.
     * @param height of the frame as it comes from the sensor.
     * @param orientation what makes it upright.
     * @param into its sides swapped if the orientation says so.
     */
    fun convert(luma: Plane, blue: Plane, red: Plane, width: Int, height: Int, orientation: Orientation, into: Pixels) {
        require(into.width == (if (orientation.swaps) height else width) && into.width * into.height == width * height) {
            "a frame of $width x $height, $orientation, does not fit into ${into.width} x ${into.height}"
        }
        lumas = taken(luma, lumas)
        blues = taken(blue, blues)
        reds = taken(red, reds)
        val start = orientation.start(width, height)
        val perX = orientation.perX(width, height)
        val perY = orientation.perY(width, height)
        for (y in 0 until height) {
            var to = start + y * perY
            val lumaRow = y * luma.rowStride
            val blueRow = (y / 2) * blue.rowStride
            val redRow = (y / 2) * red.rowStride
            for (x in 0 until width) {
                into.argb[to] = rgb(
                    lumas[lumaRow + x * luma.pixelStride].toInt() and 255,
                    (blues[blueRow + (x / 2) * blue.pixelStride].toInt() and 255) - 128,
                    (reds[redRow + (x / 2) * red.pixelStride].toInt() and 255) - 128,
                )
                to += perX
            }
        }
    }

    /** Bytes of a plane in an array, since single reads of a direct buffer are slow on old phones. */
    private fun taken(plane: Plane, into: ByteArray): ByteArray {
        val bytes = plane.bytes.duplicate()
        bytes.toStart()
        val copy = if (into.size == bytes.remaining()) into else ByteArray(bytes.remaining())
        bytes.get(copy)
        return copy
    }

    private companion object {
        const val RED_OF_RED = 91881 // 1.402, the others too, in 1/65536
        const val GREEN_OF_BLUE = 22554 // 0.344136
        const val GREEN_OF_RED = 46802 // 0.714136
        const val BLUE_OF_BLUE = 116130 // 1.772
        const val HALF = 1 shl 15

        fun rgb(y: Int, cb: Int, cr: Int): Int {
            val red = y + ((RED_OF_RED * cr + HALF) shr 16)
            val green = y + ((HALF - GREEN_OF_BLUE * cb - GREEN_OF_RED * cr) shr 16)
            val blue = y + ((BLUE_OF_BLUE * cb + HALF) shr 16)
            return (255 shl 24) or (byte(red) shl 16) or (byte(green) shl 8) or byte(blue)
        }

        fun byte(value: Int): Int = if (value < 0) 0 else if (value > 255) 255 else value
    }
}
