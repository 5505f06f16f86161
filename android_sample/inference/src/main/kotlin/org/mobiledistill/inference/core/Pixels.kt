package org.mobiledistill.inference.core

/**
 * An upright picture in memory that is ours to reuse: a new frame of the same size is written into the same array.
 *
 * @property argb width * height pixels row by row, 0xAARRGGBB, colours not multiplied by alpha.
 */
class Pixels(val width: Int, val height: Int, val argb: IntArray) {
    constructor(width: Int, height: Int) : this(width, height, IntArray(width * height))

    init {
        require(width > 0 && height > 0) { "a picture of $width x $height pixels" }
        require(argb.size == width * height) { "${argb.size} pixels, expected $width x $height" }
    }
}

/**
 * How stored pixels become upright: values 1 to 8 of the EXIF tag `Orientation`.
 *
 * @property exif the value of the tag.
 * @property mirrored whether left and right change places, before it is turned.
 * @property swaps whether width and height change places.
 * @property degrees by which it is turned clockwise.
 */
enum class Orientation(val exif: Int, val mirrored: Boolean, private val quarters: Int) {
    UPRIGHT(1, false, 0),
    MIRRORED(2, true, 0),
    TURNED_180(3, false, 2),
    FLIPPED(4, true, 2),
    TRANSPOSED(5, true, 3),
    TURNED_90(6, false, 1),
    TRANSVERSED(7, true, 1),
    TURNED_270(8, false, 3),
    ;

    val swaps: Boolean get() = quarters % 2 == 1

    val degrees: Int get() = quarters * 90

    /**
     * Where a stored pixel goes in the upright picture, as an index: start + x * perX + y * perY.
     *
     * @param width of the stored pixels.
     * @param height of the stored pixels.
     */
    internal fun start(width: Int, height: Int): Int = place(0, 0, width, height)

    internal fun perX(width: Int, height: Int): Int = if (width > 1) place(1, 0, width, height) - start(width, height) else 0

    internal fun perY(width: Int, height: Int): Int = if (height > 1) place(0, 1, width, height) - start(width, height) else 0

    private fun place(x: Int, y: Int, width: Int, height: Int): Int {
        val across = if (mirrored) width - 1 - x else x // mirrored first, then turned clockwise
        return when (quarters) {
            0 -> y * width + across
            1 -> across * height + (height - 1 - y)
            2 -> (height - 1 - y) * width + (width - 1 - across)
            else -> (width - 1 - across) * height + y
        }
    }

    /**
     * Write stored pixels into an upright picture.
     *
     * @param stored width * height pixels row by row.
     * @param into its sides swapped if [swaps].
     */
    fun turn(stored: IntArray, width: Int, height: Int, into: Pixels) {
        require(into.width == (if (swaps) height else width) && into.height == (if (swaps) width else height)) {
            "$this of $width x $height does not fit into ${into.width} x ${into.height}"
        }
        val start = start(width, height)
        val perX = perX(width, height)
        val perY = perY(width, height)
        var from = 0
        for (y in 0 until height) {
            var to = start + y * perY
            for (x in 0 until width) {
                into.argb[to] = stored[from++]
                to += perX
            }
        }
    }

    companion object {
        /** Of a value of the EXIF tag; unknown ones count as upright, as image viewers do. */
        fun ofExif(value: Int): Orientation = entries.firstOrNull { it.exif == value } ?: UPRIGHT

        /** Of a camera frame that must be turned clockwise by 0, 90, 180 or 270 degrees to be upright. */
        fun ofRotation(degrees: Int): Orientation = when (((degrees % 360) + 360) % 360) {
            0 -> UPRIGHT
            90 -> TURNED_90
            180 -> TURNED_180
            270 -> TURNED_270
            else -> throw IllegalArgumentException("a rotation by $degrees degrees, expected 0, 90, 180 or 270")
        }
    }
}

/**
 * Lay a picture with transparency over white, in place, as the training images were.
 *
 * Pillow's `alpha_composite` over opaque white, to the bit: the share of each colour has 15 bits, the quotient by 255 is
 * rounded.
 */
fun Pixels.layOverWhite() {
    for (i in argb.indices) {
        val pixel = argb[i]
        val alpha = pixel ushr 24
        if (alpha != 255) {
            val share = alpha * 128
            val rest = (255 - alpha) * 128 * 255
            argb[i] = (255 shl 24) or
                (over(pixel ushr 16 and 255, share, rest) shl 16) or
                (over(pixel ushr 8 and 255, share, rest) shl 8) or
                over(pixel and 255, share, rest)
        }
    }
}

private fun over(color: Int, share: Int, rest: Int): Int {
    val sum = color * share + rest + (128 shl 7)
    return ((sum ushr 8) + sum) ushr 8 ushr 7
}
