package org.pocketfleet.demo

import android.content.Context
import android.graphics.Canvas
import android.graphics.Paint
import android.graphics.Path
import android.util.AttributeSet
import android.view.MotionEvent
import android.view.View
import kotlin.math.min

/** A square to draw a digit in. */
class DigitView(context: Context, attributes: AttributeSet?) : View(context, attributes) {
    private val drawn = mutableListOf<MutableList<Touch>>()
    private val path = Path()
    private val ink = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        style = Paint.Style.STROKE
        strokeCap = Paint.Cap.ROUND
        strokeJoin = Paint.Join.ROUND
        color = context.getColor(R.color.ink)
    }
    private val paper = Paint().apply { color = context.getColor(R.color.paper) }

    /** Called whenever the drawing has changed. */
    var changed: () -> Unit = {}

    /** What was drawn so far, stroke by stroke. */
    val strokes: List<List<Touch>> get() = drawn.map { it.toList() }

    /** Wipe it. */
    fun clear() {
        drawn.clear()
        path.reset()
        invalidate()
        changed()
    }

    override fun onMeasure(widthMeasureSpec: Int, heightMeasureSpec: Int) {
        val side = min(MeasureSpec.getSize(widthMeasureSpec), (SIDE_DP * resources.displayMetrics.density).toInt())
        setMeasuredDimension(side, side)
    }

    override fun onDraw(canvas: Canvas) {
        super.onDraw(canvas)
        canvas.drawRect(0f, 0f, width.toFloat(), height.toFloat(), paper)
        ink.strokeWidth = width / PEN_SHARE
        canvas.drawPath(path, ink)
    }

    override fun onTouchEvent(event: MotionEvent): Boolean {
        when (event.actionMasked) {
            MotionEvent.ACTION_DOWN -> {
                // The page that this lies in must not scroll away under the finger.
                parent?.requestDisallowInterceptTouchEvent(true)
                drawn += mutableListOf(Touch(event.x, event.y))
                path.moveTo(event.x, event.y)
                // A tap without a move is a dot.
                path.lineTo(event.x + DOT, event.y)
            }
            MotionEvent.ACTION_MOVE -> if (drawn.isNotEmpty()) {
                // Android gathers several places into one event.
                for (place in 0 until event.historySize) add(event.getHistoricalX(place), event.getHistoricalY(place))
                add(event.x, event.y)
            }
            MotionEvent.ACTION_UP -> performClick()
            else -> return false
        }
        invalidate()
        changed()
        return true
    }

    override fun performClick(): Boolean {
        super.performClick()
        return true
    }

    private fun add(x: Float, y: Float) {
        drawn.last() += Touch(x, y)
        path.lineTo(x, y)
    }

    private companion object {
        const val SIDE_DP = 280f
        const val PEN_SHARE = 14f
        const val DOT = 0.1f
    }
}
