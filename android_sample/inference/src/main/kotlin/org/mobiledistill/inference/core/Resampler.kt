package org.mobiledistill.inference.core

import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.max
import kotlin.math.min

/** A box of an image in whole pixels. */
class Box(val left: Int, val top: Int, val width: Int, val height: Int) {
    companion object {
        /** The part of an image that the model sees. */
        fun of(width: Int, height: Int, crop: Crop): Box {
            if (crop == Crop.NONE) return Box(0, 0, width, height)
            val side = min(width, height)
            return Box((width - side) / 2, (height - side) / 2, side, side)
        }
    }
}

/**
 * Scales a box of an image to a square as the training images were scaled, to the pixel.
 *
 * That is Pillow's bilinear filter: a triangle whose support grows with the reduction, along rows and along columns, each
 * time in fixed point with 22 bits behind the point and rounded to 8 bits. In the outer ring of the square it also sees
 * pixels just outside the box, where the image has some. Rows come first. All that depends on sizes is made once, here.
 *
 * @param width of the image.
 * @param height of the image.
 * @param size side of the square.
 */
internal class Resampler(private val width: Int, private val height: Int, box: Box, private val size: Int) {
    private val across = Taps(width, box.left, box.width, size)
    private val down = Taps(height, box.top, box.height, size)

    /** Red, green and blue after the first pass: `size` columns of the rows in use. */
    private val between = ByteArray(down.used * size * 3)

    fun fits(image: Pixels): Boolean = image.width == width && image.height == height

    /**
     * @param argb width * height opaque pixels; alpha is not looked at.
     * @param into size * size * 3 bytes: red, green, blue of each pixel, row by row.
     */
    fun run(argb: IntArray, into: ByteArray) {
        for (y in 0 until down.used) {
            val start = (down.lowest + y) * width
            for (x in 0 until size) mix(argb, start + across.first[x], across, x, (y * size + x) * 3)
        }
        for (y in 0 until size) {
            val start = (down.first[y] - down.lowest) * size
            for (x in 0 until size) mix((start + x) * 3, down, y, into, (y * size + x) * 3)
        }
    }

    /** One pixel of the first pass. */
    private fun mix(argb: IntArray, start: Int, taps: Taps, place: Int, to: Int) {
        var red = HALF
        var green = HALF
        var blue = HALF
        var from = start
        val weights = place * taps.most
        for (tap in weights until weights + taps.count[place]) {
            val pixel = argb[from]
            val weight = taps.weights[tap]
            red += (pixel ushr 16 and 255) * weight
            green += (pixel ushr 8 and 255) * weight
            blue += (pixel and 255) * weight
            from += 1
        }
        between[to] = byte(red)
        between[to + 1] = byte(green)
        between[to + 2] = byte(blue)
    }

    /** One pixel of the second pass. */
    private fun mix(start: Int, taps: Taps, place: Int, into: ByteArray, to: Int) {
        var red = HALF
        var green = HALF
        var blue = HALF
        var from = start
        val weights = place * taps.most
        for (tap in weights until weights + taps.count[place]) {
            val weight = taps.weights[tap]
            red += (between[from].toInt() and 255) * weight
            green += (between[from + 1].toInt() and 255) * weight
            blue += (between[from + 2].toInt() and 255) * weight
            from += size * 3
        }
        into[to] = byte(red)
        into[to + 1] = byte(green)
        into[to + 2] = byte(blue)
    }

    private fun byte(sum: Int): Byte = min(255, max(0, sum shr BITS)).toByte()

    /** What each of `wanted` pixels along one side is made of. */
    private class Taps(side: Int, start: Int, length: Int, wanted: Int) {
        private val scale = length.toDouble() / wanted
        private val reach = max(scale, 1.0)

        /** Weights of one pixel, at most. */
        val most = ceil(reach).toInt() * 2 + 1
        val first = IntArray(wanted)
        val count = IntArray(wanted)
        val weights = IntArray(wanted * most)

        init {
            val exact = DoubleArray(most)
            for (i in 0 until wanted) {
                val center = start + (i + 0.5) * scale
                val low = max(0, (center - reach + 0.5).toInt())
                val high = min(side, (center + reach + 0.5).toInt())
                var sum = 0.0
                for (tap in 0 until high - low) {
                    // Written in another order, these operations round otherwise than Pillow's.
                    exact[tap] = max(0.0, 1.0 - abs((tap + low - center + 0.5) * (1.0 / reach)))
                    sum += exact[tap]
                }
                first[i] = low
                count[i] = high - low
                for (tap in 0 until high - low) {
                    val weight = if (sum == 0.0) exact[tap] else exact[tap] / sum
                    weights[i * most + tap] = (0.5 + weight * (1 shl BITS)).toInt()
                }
            }
        }

        /** First pixel of the side that is used by any. */
        val lowest = first[0]

        /** Pixels from there to the last that is used. */
        val used = first[wanted - 1] + count[wanted - 1] - lowest
    }

    private companion object {
        const val BITS = 22 // 32 less 8 of the pixel, less 2 for sums beyond 255
        const val HALF = 1 shl (BITS - 1)
    }
}
