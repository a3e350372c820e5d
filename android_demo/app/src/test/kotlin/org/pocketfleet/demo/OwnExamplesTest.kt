package org.pocketfleet.demo

import org.junit.Rule
import org.junit.rules.TemporaryFolder
import org.pocketfleet.core.ElementType
import java.io.File
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

class OwnExamplesTest {
    @get:Rule
    val folder = TemporaryFolder()

    private val file get() = File(folder.root, "examples.bin")

    private fun house(first: Float) = FloatArray(13) { first + it }

    @Test
    fun `examples come back as the programs take them, also after a restart`() {
        val examples = OwnExamples(file, DemoTask.HOUSES)
        assertEquals(0, examples.count)
        repeat(3) { examples.add(house(100f * it), 20f + it) }
        val batch = OwnExamples(file, DemoTask.HOUSES).take(intArrayOf(2, 0))
        assertContentEquals(longArrayOf(2, 13), batch.x.shape)
        assertContentEquals(longArrayOf(2, 1), batch.y.shape)
        assertContentEquals(house(200f) + house(0f), batch.x.floats())
        assertContentEquals(floatArrayOf(22f, 20f), batch.y.floats())
    }

    @Test
    fun `a digit's target is a whole number without a size of its own`() {
        val examples = OwnExamples(file, DemoTask.DIGITS)
        examples.add(FloatArray(784) { it.toFloat() }, 7f)
        val batch = examples.take(intArrayOf(0))
        assertContentEquals(longArrayOf(1, 1, 28, 28), batch.x.shape)
        assertEquals(ElementType.INT64, batch.y.type)
        assertContentEquals(longArrayOf(1), batch.y.shape)
        assertEquals(7L, batch.y.values().getLong())
    }

    @Test
    fun `a row that a crash cut short is none, and the next one takes its place`() {
        val examples = OwnExamples(file, DemoTask.HOUSES)
        examples.add(house(1f), 10f)
        file.appendBytes(ByteArray(17) { 1 })
        assertEquals(1, examples.count)
        examples.add(house(2f), 11f)
        assertEquals(2, examples.count)
        assertContentEquals(floatArrayOf(10f, 11f), examples.take(intArrayOf(0, 1)).y.floats())
        assertEquals(2L * 14 * 4, file.length())
    }

    @Test
    fun `what is no example is refused`() {
        val examples = OwnExamples(file, DemoTask.HOUSES)
        val few = assertFailsWith<IllegalArgumentException> { examples.add(FloatArray(12), 1f) }
        assertEquals("boston takes 13 numbers an example, got 12", few.message)
        assertFailsWith<IllegalArgumentException> { examples.add(house(Float.NaN), 1f) }
        assertFailsWith<IllegalArgumentException> { examples.add(house(1f), Float.POSITIVE_INFINITY) }
        assertEquals(0, examples.count)
        assertFailsWith<IllegalArgumentException> { examples.take(intArrayOf(0)) }
    }

    @Test
    fun `forgotten examples are gone from the storage`() {
        val examples = OwnExamples(file, DemoTask.HOUSES)
        examples.add(house(1f), 1f)
        examples.clear()
        assertEquals(0, examples.count)
        assertEquals(false, file.exists())
        examples.clear()
    }
}
