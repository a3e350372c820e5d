package org.pocketfleet.demo

/** Where the points of curves lie in a box of 1 by 1, the origin at the bottom left. */
class CurveScale(private val curves: List<List<Double?>>) {
    private val values = curves.flatten().filterNotNull().filter(Double::isFinite)

    /** Of all curves together; null: there is nothing to draw. */
    val least: Double? = values.minOrNull()
    val most: Double? = values.maxOrNull()

    /** A place on a curve; [x] and [y] from 0 to 1. */
    data class Point(val x: Float, val y: Float)

    /** The points of each curve, left to right; where it has no value, it has no point. */
    fun points(): List<List<Point>> = curves.map { curve ->
        curve.mapIndexedNotNull { place, value ->
            if (value == null || !value.isFinite()) null else Point(across(place, curve.size), up(value))
        }
    }

    private fun across(place: Int, count: Int): Float = if (count > 1) place / (count - 1f) else 0.5f

    private fun up(value: Double): Float {
        val low = checkNotNull(least)
        val high = checkNotNull(most)
        return if (high > low) ((value - low) / (high - low)).toFloat() else 0.5f
    }
}
