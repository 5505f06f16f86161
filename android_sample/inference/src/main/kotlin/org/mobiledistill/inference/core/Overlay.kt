package org.mobiledistill.inference.core

/**
 * A mask laid over its image, in the colours that the reports of mobile-distill use.
 *
 * @param colors of the classes, 0xRRGGBB.
 * @param clear class that stays untouched, or -1.
 * @param alpha share of the colour in tinted pixels, 0..1.
 * @param outline whether pixels next to another class get the full colour of their own.
 */
class Overlay(
    private val colors: IntArray,
    private val clear: Int,
    private val alpha: Float = 0.5f,
    private val outline: Boolean = true,
) {
    init {
        require(alpha in 0f..1f) { "a share of $alpha, expected 0 to 1" }
    }

    /**
     * Tint an image where a box of it has a mask, in place; float32 and rounded to even, as NumPy does it.
     *
     * @param image opaque.
     * @param mask box.width * box.height classes.
     */
    fun tint(image: Pixels, mask: ByteArray, box: Box) {
        for (y in 0 until box.height) {
            for (x in 0 until box.width) {
                val at = y * box.width + x
                val share = share(mask, box.width, box.height, x, y)
                if (share > 0f) {
                    val place = (box.top + y) * image.width + box.left + x
                    val old = image.argb[place]
                    val color = colorOf(mask[at].toInt() and 255)
                    image.argb[place] = (255 shl 24) or
                        (mixed(old ushr 16 and 255, color ushr 16 and 255, share) shl 16) or
                        (mixed(old ushr 8 and 255, color ushr 8 and 255, share) shl 8) or
                        mixed(old and 255, color and 255, share)
                }
            }
        }
    }

    /**
     * The mask as a layer of its own, to be drawn over a live picture by whoever draws that.
     *
     * @param into width * height pixels, 0xAARRGGBB, colours not multiplied by alpha.
     */
    fun layer(mask: ByteArray, width: Int, height: Int, into: IntArray) {
        for (y in 0 until height) {
            for (x in 0 until width) {
                val at = y * width + x
                val share = share(mask, width, height, x, y)
                val color = colorOf(mask[at].toInt() and 255)
                into[at] = if (share > 0f) (Math.rint(share * 255.0).toInt() shl 24) or color else 0
            }
        }
    }

    private fun share(mask: ByteArray, width: Int, height: Int, x: Int, y: Int): Float {
        val at = y * width + x
        val own = mask[at]
        if ((own.toInt() and 255) == clear) return 0f
        val edge = outline && alpha > 0f && (
            (x > 0 && mask[at - 1] != own) || (x + 1 < width && mask[at + 1] != own) ||
                (y > 0 && mask[at - width] != own) || (y + 1 < height && mask[at + width] != own)
            )
        return if (edge) 1f else alpha
    }

    private fun colorOf(place: Int): Int {
        require(place < colors.size) { "the mask holds class $place, there are ${colors.size} colours" }
        return colors[place]
    }

    private fun mixed(old: Int, color: Int, share: Float): Int =
        Math.rint((old + (color.toFloat() - old) * share).toDouble()).toInt()
}
