package org.pocketfleet.demo

import kotlin.math.hypot
import kotlin.math.max
import kotlin.math.min
import kotlin.math.roundToInt

/** A place that a finger touched, in the picture's own units. */
data class Touch(val x: Float, val y: Float)

/**
 * A drawing as the digit recogniser was taught digits: scaled into 20 x 20 pixels, centred by its mass in 28 x 28, and
 * standardised.
 *
 * Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition", section III.A; mean and spread
 * are those that the task standardises its own digits by.
 */
object DigitRaster {
    /** Pixels of a side. */
    const val SIDE = 28

    private const val BOX = 20
    private const val MEAN = 0.1307f
    private const val SPREAD = 0.3081f

    // Of a stroke, in pixels: MNIST's pens are some two pixels wide, of which the edge fades over another.
    private const val PEN_RADIUS = 0.9f
    private const val PEN_EDGE = 0.8f

    /** Standardised pixels `[28 * 28]`, row-major; null: nothing was drawn. */
    fun pixels(strokes: List<List<Touch>>): FloatArray? {
        val touches = strokes.flatten()
        if (touches.isEmpty()) return null
        val ink = centred(drawn(fitted(strokes, touches)))
        return FloatArray(ink.size) { (ink[it] - MEAN) / SPREAD }
    }

    /** Strokes whose longer side, with the pen's own width, is as long as the box, its corner at 0. */
    private fun fitted(strokes: List<List<Touch>>, touches: List<Touch>): List<List<Touch>> {
        val left = touches.minOf { it.x }
        val top = touches.minOf { it.y }
        val side = max(touches.maxOf { it.x } - left, touches.maxOf { it.y } - top)
        // A dot has no size, and stays one.
        val scale = if (side > 0f) (BOX - 1 - 2 * PEN_RADIUS) / side else 1f
        return strokes.map { stroke ->
            stroke.map { Touch(PEN_RADIUS + (it.x - left) * scale, PEN_RADIUS + (it.y - top) * scale) }
        }
    }

    /** Ink from 0 to 1 in the middle of the picture. */
    private fun drawn(strokes: List<List<Touch>>): FloatArray {
        val ink = FloatArray(SIDE * SIDE)
        val margin = (SIDE - BOX) / 2f
        for (stroke in strokes) {
            val lines = if (stroke.size == 1) listOf(stroke[0] to stroke[0]) else stroke.zipWithNext()
            for ((from, to) in lines) {
                for (place in ink.indices) {
                    val away = distance(place % SIDE - margin, place / SIDE - margin, from, to)
                    val shade = min(1f, max(0f, (PEN_RADIUS + PEN_EDGE - away) / PEN_EDGE))
                    ink[place] = max(ink[place], shade)
                }
            }
        }
        return ink
    }

    private fun distance(x: Float, y: Float, from: Touch, to: Touch): Float {
        val (dx, dy) = to.x - from.x to to.y - from.y
        val length = dx * dx + dy * dy
        val along = if (length == 0f) 0f else min(1f, max(0f, ((x - from.x) * dx + (y - from.y) * dy) / length))
        return hypot(x - from.x - along * dx, y - from.y - along * dy)
    }

    /** The same ink with its centre of mass in the middle, moved by whole pixels, and never out of the picture. */
    private fun centred(ink: FloatArray): FloatArray {
        val mass = ink.sum()
        val middle = (SIDE - 1) / 2f
        val dx = (middle - ink.indices.sumOf { (ink[it] * (it % SIDE)).toDouble() }.toFloat() / mass).roundToInt()
        val dy = (middle - ink.indices.sumOf { (ink[it] * (it / SIDE)).toDouble() }.toFloat() / mass).roundToInt()
        val inked = ink.indices.filter { ink[it] > 0f }
        val right = inked.maxOf { it % SIDE }
        val left = inked.minOf { it % SIDE }
        val bottom = inked.maxOf { it / SIDE }
        val top = inked.minOf { it / SIDE }
        val moveX = dx.coerceIn(-left, SIDE - 1 - right)
        val moveY = dy.coerceIn(-top, SIDE - 1 - bottom)
        val moved = FloatArray(ink.size)
        for (place in inked) moved[place + moveY * SIDE + moveX] = ink[place]
        return moved
    }
}
