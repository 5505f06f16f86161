package org.mobiledistill.inference

import android.graphics.Bitmap
import android.media.Image
import org.mobiledistill.inference.core.CameraFrame
import org.mobiledistill.inference.core.Orientation
import org.mobiledistill.inference.core.Pixels
import org.mobiledistill.inference.core.Plane
import org.mobiledistill.inference.core.layOverWhite

/** Bitmaps and camera frames to upright pixels, into memory that is used again. Not for several threads at once. */
internal class PixelReader {
    private val frame = CameraFrame()
    private var pixels: Pixels? = null

    fun read(bitmap: Bitmap): Pixels {
        // A hardware bitmap lies where the CPU cannot read it.
        val readable = if (bitmap.config == Bitmap.Config.ARGB_8888) bitmap else bitmap.copy(Bitmap.Config.ARGB_8888, false)
        val into = sized(bitmap.width, bitmap.height)
        readable.getPixels(into.argb, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
        if (readable !== bitmap) readable.recycle()
        if (bitmap.hasAlpha()) into.layOverWhite()
        return into
    }

    fun read(image: Image, rotation: Int): Pixels {
        val turn = Orientation.ofRotation(rotation)
        val into = if (turn.swaps) sized(image.height, image.width) else sized(image.width, image.height)
        val (luma, blue, red) = image.planes.map { Plane(it.buffer, it.rowStride, it.pixelStride) }
        frame.convert(luma, blue, red, image.width, image.height, turn, into)
        return into
    }

    private fun sized(width: Int, height: Int): Pixels {
        val known = pixels
        if (known != null && known.width == width && known.height == height) return known
        return Pixels(width, height).also { pixels = it }
    }
}
