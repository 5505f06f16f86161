package org.mobiledistill.sample

import android.content.Context
import android.graphics.Canvas
import android.graphics.Paint
import android.util.AttributeSet
import android.util.TypedValue
import android.view.View

/** Labels with a bar each; read aloud as a list. */
class BarsView(context: Context, attributes: AttributeSet?) : View(context, attributes) {
    private val density = resources.displayMetrics.density
    private val text = Paint(Paint.ANTI_ALIAS_FLAG)
    private val bar = Paint(Paint.ANTI_ALIAS_FLAG)
    private val rowHeight: Float
    private var bars: List<Bar> = emptyList()

    init {
        @Suppress("DEPRECATION") // getColor(id, theme) came with Android 6
        text.color = resources.getColor(R.color.text)
        text.textSize = TypedValue.applyDimension(TypedValue.COMPLEX_UNIT_SP, 15f, resources.displayMetrics)
        rowHeight = text.textSize * 1.3f + 12 * density
    }

    fun show(shown: List<Bar>) {
        val resized = shown.size != bars.size
        bars = shown
        contentDescription = shown.joinToString(". ") {
            context.getString(R.string.percent, it.label, Math.round(it.share * 100))
        }
        if (resized) requestLayout()
        invalidate()
    }

    override fun onMeasure(widthMeasureSpec: Int, heightMeasureSpec: Int) {
        setMeasuredDimension(MeasureSpec.getSize(widthMeasureSpec), Math.ceil((bars.size * rowHeight).toDouble()).toInt())
    }

    @Suppress("DEPRECATION")
    override fun onDraw(canvas: Canvas) {
        val gap = 4 * density
        val percentWidth = text.measureText("100 %")
        bars.forEachIndexed { row, each ->
            val top = row * rowHeight + gap
            val base = top + text.textSize
            text.textAlign = Paint.Align.LEFT
            val room = width - percentWidth - gap
            val fits = text.breakText(each.label, true, room, null)
            canvas.drawText(each.label, 0, fits, 0f, base, text)
            text.textAlign = Paint.Align.RIGHT
            canvas.drawText("${Math.round(each.share * 100)} %", width.toFloat(), base, text)
            val barTop = base + gap * 1.2f
            bar.color = resources.getColor(R.color.bar_ground)
            canvas.drawRect(0f, barTop, width.toFloat(), barTop + gap, bar)
            bar.color = each.color?.let { 0xFF000000.toInt() or it } ?: resources.getColor(R.color.accent)
            canvas.drawRect(0f, barTop, width * minOf(1f, each.share), barTop + gap, bar)
        }
    }
}
