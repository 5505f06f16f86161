package org.mobiledistill.sample

import android.content.Context
import android.graphics.Matrix
import android.graphics.RectF
import android.util.AttributeSet
import android.view.TextureView

/** The camera's live picture, whole and upright, as large as fits. */
class PreviewView(context: Context, attributes: AttributeSet?) : TextureView(context, attributes) {
    private var bufferWidth = 0
    private var bufferHeight = 0
    private var rotation = 0

    /**
     * @param width of the frames as they come from the sensor.
     * @param height of the frames as they come from the sensor.
     * @param displayRotation degrees by which the screen is turned: the system has already turned the picture for 0.
     * @param swapped whether the upright picture has the sides of the frames swapped when the screen is not turned.
     */
    fun fit(width: Int, height: Int, displayRotation: Int, swapped: Boolean) {
        bufferWidth = if (swapped) height else width
        bufferHeight = if (swapped) width else height
        rotation = displayRotation
        place()
    }

    /** Where the upright picture of these sides lies within this view. */
    fun frame(uprightWidth: Int, uprightHeight: Int): RectF {
        val scale = minOf(width.toFloat() / uprightWidth, height.toFloat() / uprightHeight)
        val wide = uprightWidth * scale
        val high = uprightHeight * scale
        val left = (width - wide) / 2
        val top = (height - high) / 2
        return RectF(left, top, left + wide, top + high)
    }

    override fun onSizeChanged(w: Int, h: Int, oldw: Int, oldh: Int) {
        super.onSizeChanged(w, h, oldw, oldh)
        place()
    }

    private fun place() {
        if (bufferWidth == 0 || width == 0) return
        // The system stretches the picture, turned for an unturned screen, over the whole view.
        val turned = rotation % 180 != 0
        val uprightWidth = if (turned) bufferHeight else bufferWidth
        val uprightHeight = if (turned) bufferWidth else bufferHeight
        val into = frame(uprightWidth, uprightHeight)
        val matrix = Matrix()
        val middleX = width / 2f
        val middleY = height / 2f
        val wide = if (turned) into.height() else into.width()
        val high = if (turned) into.width() else into.height()
        matrix.postScale(wide / width, high / height, middleX, middleY)
        matrix.postRotate(-rotation.toFloat(), middleX, middleY)
        setTransform(matrix)
    }
}
