package org.pocketfleet.demo

import android.content.Context
import android.graphics.Canvas
import android.graphics.Paint
import android.graphics.Path
import android.util.AttributeSet
import android.view.View

/** Loss, the error of the service's model and that of the phone's own, round by round: one line each. */
class CurveView(context: Context, attributes: AttributeSet?) : View(context, attributes) {
    private val paints = listOf(R.color.curve_loss, R.color.curve_global, R.color.curve_personal).map { color ->
        Paint(Paint.ANTI_ALIAS_FLAG).apply {
            style = Paint.Style.STROKE
            strokeWidth = LINE_DP * resources.displayMetrics.density
            this.color = context.getColor(color)
        }
    }
    private val frame = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        style = Paint.Style.STROKE
        color = context.getColor(R.color.frame)
    }
    private var curves: List<List<CurveScale.Point>> = emptyList()
    private val path = Path()

    /** Draw these rounds. Each curve has a scale of its own: a loss and an error are not of one size. */
    fun show(rounds: List<RoundPoint>) {
        val errors = CurveScale(listOf(rounds.map { it.errorGlobal }, rounds.map { it.errorPersonal }))
        curves = CurveScale(listOf(rounds.map { it.trainLoss })).points() + errors.points()
        invalidate()
    }

    override fun onDraw(canvas: Canvas) {
        super.onDraw(canvas)
        val margin = MARGIN_DP * resources.displayMetrics.density
        val right = width - margin
        val bottom = height - margin
        canvas.drawRect(margin, margin, right, bottom, frame)
        for ((curve, paint) in curves.zip(paints)) {
            path.reset()
            for ((place, point) in curve.withIndex()) {
                val x = margin + point.x * (right - margin)
                val y = bottom - point.y * (bottom - margin)
                if (place == 0) path.moveTo(x, y) else path.lineTo(x, y)
                // A single round is a dot.
                if (curve.size == 1) path.addCircle(x, y, paint.strokeWidth, Path.Direction.CW)
            }
            canvas.drawPath(path, paint)
        }
    }

    private companion object {
        const val LINE_DP = 2f
        const val MARGIN_DP = 8f
    }
}
