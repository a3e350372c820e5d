package org.pocketfleet.demo

import kotlin.math.abs
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue

class DigitRasterTest {
    private val side = DigitRaster.SIDE

    // What an empty pixel becomes: (0 - 0.1307) / 0.3081.
    private val empty = -0.1307f / 0.3081f

    private fun inked(strokes: List<List<Touch>>) = assertNotNull(DigitRaster.pixels(strokes)).let { pixels ->
        pixels.indices.filter { pixels[it] > empty }.map { it % side to it / side }
    }

    @Test
    fun `nothing drawn is nothing`() {
        assertNull(DigitRaster.pixels(emptyList()))
        assertNull(DigitRaster.pixels(listOf(emptyList())))
    }

    @Test
    fun `an upright stroke fills the box of 20 pixels in the middle`() {
        val places = inked(listOf(listOf(Touch(500f, 100f), Touch(500f, 700f))))
        val columns = places.map { it.first }
        val rows = places.map { it.second }
        // 20 rows, and one of the pen's fading edge at either end.
        assertTrue(rows.max() - rows.min() + 1 in 20..22, "$rows")
        assertTrue(columns.max() - columns.min() in 1..3, "$columns")
        assertTrue(abs((rows.max() + rows.min()) / 2f - (side - 1) / 2f) <= 1f, "$rows")
        assertTrue(abs((columns.max() + columns.min()) / 2f - (side - 1) / 2f) <= 1f, "$columns")
    }

    @Test
    fun `where and how large it was drawn makes no difference`() {
        val seven = listOf(Touch(0f, 0f), Touch(40f, 0f), Touch(20f, 60f))
        val far = seven.map { Touch(100 + 4 * it.x, 300 + 4 * it.y) }
        assertContentEquals(DigitRaster.pixels(listOf(seven)), DigitRaster.pixels(listOf(far)))
    }

    @Test
    fun `a dot is a dot`() {
        val places = inked(listOf(listOf(Touch(9f, 9f))))
        assertTrue(places.size in 1..16, "$places")
    }

    @Test
    fun `the centre of mass is in the middle, and no ink is lost`() {
        // A seven, whose ink lies above and to the right of its box's middle.
        val drawn = listOf(listOf(Touch(0f, 0f), Touch(60f, 0f), Touch(30f, 90f)))
        val pixels = assertNotNull(DigitRaster.pixels(drawn))
        val ink = pixels.map { it * 0.3081 + 0.1307 }
        val mass = ink.sum()
        val across = ink.indices.sumOf { ink[it] * (it % side) } / mass
        val down = ink.indices.sumOf { ink[it] * (it / side) } / mass
        // Moved by whole pixels.
        assertEquals((side - 1) / 2.0, across, 0.51)
        assertEquals((side - 1) / 2.0, down, 0.51)
        assertTrue(ink.all { it in -1e-6..1.000001 })
    }
}
