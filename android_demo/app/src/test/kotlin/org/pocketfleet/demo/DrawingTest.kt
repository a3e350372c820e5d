package org.pocketfleet.demo

import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals

class DrawingTest {
    @Test
    fun `what was drawn outlives the view, and goes on`() {
        val drawing = Drawing()
        drawing.go(Touch(0.9f, 0.9f))
        assertEquals(emptyList(), drawing.strokes)
        drawing.begin(Touch(0.1f, 0.2f))
        drawing.go(Touch(0.3f, 0.4f))
        drawing.begin(Touch(0.5f, 0.6f))
        val turned = Drawing().apply { begin(Touch(0f, 0f)) }
        turned.restore(drawing.kept)
        assertEquals(listOf(listOf(Touch(0.1f, 0.2f), Touch(0.3f, 0.4f)), listOf(Touch(0.5f, 0.6f))), turned.strokes)
        turned.go(Touch(0.7f, 0.8f))
        assertEquals(2, turned.strokes.last().size)
    }

    @Test
    fun `nothing drawn is nothing kept`() {
        val drawing = Drawing().apply { begin(Touch(0.1f, 0.2f)) }
        drawing.clear()
        assertContentEquals(floatArrayOf(), drawing.kept)
        drawing.restore(drawing.kept)
        assertEquals(emptyList(), drawing.strokes)
    }
}
