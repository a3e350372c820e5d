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
    private val drawing = Drawing()
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

    /** What was drawn so far, stroke by stroke, in shares of the side. */
    val strokes: List<List<Touch>> get() = drawing.strokes

    /** What was drawn, as it is kept while the screen is turned. */
    val kept: FloatArray get() = drawing.kept

    /** Draw what was [kept]. */
    fun restore(kept: FloatArray) {
        drawing.restore(kept)
        invalidate()
        changed()
    }

    /** Wipe it. */
    fun clear() {
        drawing.clear()
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
        path.reset()
        for (stroke in drawing.strokes) {
            val first = stroke.first()
            path.moveTo(first.x * width, first.y * width)
            // A tap without a move is a dot.
            path.lineTo(first.x * width + DOT, first.y * width)
            for (touch in stroke.drop(1)) path.lineTo(touch.x * width, touch.y * width)
        }
        canvas.drawPath(path, ink)
    }

    override fun onTouchEvent(event: MotionEvent): Boolean {
        when (event.actionMasked) {
            MotionEvent.ACTION_DOWN -> {
                // The page that this lies in must not scroll away under the finger.
                parent?.requestDisallowInterceptTouchEvent(true)
                drawing.begin(touch(event.x, event.y))
            }
            MotionEvent.ACTION_MOVE -> {
                // Android gathers several places into one event.
                for (place in 0 until event.historySize) {
                    drawing.go(touch(event.getHistoricalX(place), event.getHistoricalY(place)))
                }
                drawing.go(touch(event.x, event.y))
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

    private fun touch(x: Float, y: Float) = Touch(x / width, y / width)

    private companion object {
        const val SIDE_DP = 280f
        const val PEN_SHARE = 14f
        const val DOT = 0.1f
    }
}
