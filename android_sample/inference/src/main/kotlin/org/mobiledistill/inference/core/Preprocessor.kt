package org.mobiledistill.inference.core

import java.nio.ByteBuffer

/**
 * An upright picture to the bytes that the model takes: cut, scale, lay row by row. The model normalises them itself.
 *
 * Pictures of one size after another allocate nothing. Not for several threads at once.
 */
class Preprocessor(private val crop: Crop, private val size: Int) {
    private val rgb = ByteArray(size * size * 3)
    private var resampler: Resampler? = null

    /**
     * @param image opaque, or laid over white by [layOverWhite].
     * @param into gets size * size * 3 bytes from its start on.
     */
    fun fill(image: Pixels, into: ByteBuffer) {
        var scaling = resampler
        if (scaling == null || !scaling.fits(image)) {
            scaling = Resampler(image.width, image.height, Box.of(image.width, image.height, crop), size)
            resampler = scaling
        }
        scaling.run(image.argb, rgb)
        into.toStart()
        into.put(rgb)
        into.toStart()
    }
}
