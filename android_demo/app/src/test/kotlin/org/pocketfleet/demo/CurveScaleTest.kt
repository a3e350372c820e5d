package org.pocketfleet.demo

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertNull

class CurveScaleTest {
    private fun at(x: Float, y: Float) = CurveScale.Point(x, y)

    @Test
    fun `curves share one scale, and have no point where there is no value`() {
        val points = CurveScale(listOf(listOf(4.0, 2.0, 0.0), listOf(null, 3.0, Double.NaN))).points()
        assertEquals(listOf(at(0f, 1f), at(0.5f, 0.5f), at(1f, 0f)), points[0])
        assertEquals(listOf(at(0.5f, 0.75f)), points[1])
    }

    @Test
    fun `one value, or values that are all the same, lie in the middle`() {
        assertEquals(listOf(listOf(at(0.5f, 0.5f))), CurveScale(listOf(listOf(7.0))).points())
        assertEquals(listOf(listOf(at(0f, 0.5f), at(1f, 0.5f))), CurveScale(listOf(listOf(7.0, 7.0))).points())
    }

    @Test
    fun `nothing is nothing`() {
        val scale = CurveScale(listOf(emptyList(), listOf(null)))
        assertNull(scale.least)
        assertEquals(listOf(emptyList<CurveScale.Point>(), emptyList()), scale.points())
    }
}
