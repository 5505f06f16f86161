package org.mobiledistill.inference

import android.content.ContentResolver
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.Matrix
import android.net.Uri
import java.io.BufferedInputStream
import java.io.FileNotFoundException
import java.io.IOException
import org.mobiledistill.inference.core.Exif
import org.mobiledistill.inference.core.Orientation

/** Photos of the gallery, small enough for a weak phone and turned as people see them. */
object Photos {
    /**
     * @param longest least pixels of the longer side that are kept of a larger photo: it is halved until just above.
     * @throws IOException it cannot be read, or is no image.
     */
    fun decode(resolver: ContentResolver, uri: Uri, longest: Int = 1024): Bitmap {
        val bounds = BitmapFactory.Options().apply { inJustDecodeBounds = true }
        open(resolver, uri).use { BitmapFactory.decodeStream(it, null, bounds) }
        val options = BitmapFactory.Options()
        options.inSampleSize = 1
        while (maxOf(bounds.outWidth, bounds.outHeight) / (options.inSampleSize * 2) >= longest) options.inSampleSize *= 2
        val stored = open(resolver, uri).use { BitmapFactory.decodeStream(it, null, options) }
            ?: throw IOException("$uri is no image that Android can read")
        val turn = open(resolver, uri).use { Exif.orientation(it) }
        return upright(stored, turn)
    }

    private fun open(resolver: ContentResolver, uri: Uri) =
        BufferedInputStream(resolver.openInputStream(uri) ?: throw FileNotFoundException("$uri cannot be read"))

    private fun upright(stored: Bitmap, turn: Orientation): Bitmap {
        if (turn == Orientation.UPRIGHT) return stored
        val matrix = Matrix()
        if (turn.mirrored) matrix.postScale(-1f, 1f)
        matrix.postRotate(turn.degrees.toFloat())
        // Without a filter: quarter turns and mirroring move pixels, they make no new ones.
        return Bitmap.createBitmap(stored, 0, 0, stored.width, stored.height, matrix, false)
    }
}
