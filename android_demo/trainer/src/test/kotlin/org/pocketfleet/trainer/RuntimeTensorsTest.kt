package org.pocketfleet.trainer

import org.junit.Test
import org.pocketfleet.core.ElementType
import org.pocketfleet.core.HostTensor
import org.pocketfleet.core.Role
import org.pocketfleet.core.TensorSpec
import org.pytorch.executorch.EValue
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotSame

class RuntimeTensorsTest {
    private val passed = ElementType.entries - ElementType.BOOL

    @Test
    fun `values of every type go in and come out as they were, copied`() {
        for (type in passed) {
            val tensor = counting(type, 2, 3)
            val copy = RuntimeTensors.copied(RuntimeTensors.input(tensor), type)
            assertEquals(type, copy.type)
            assertContentEquals(tensor.shape, copy.shape)
            assertContentEquals(bytes(tensor), bytes(copy), "$type")
            assertNotSame(tensor.data, copy.data)
            val before = bytes(copy)
            tensor.data.put(0, 99)
            assertContentEquals(before, bytes(copy), "$type is no copy")
        }
    }

    @Test
    fun `a scalar and a tensor without values are tensors too`() {
        for (shape in listOf(longArrayOf(), longArrayOf(0, 4))) {
            val tensor = HostTensor.zeros(ElementType.FLOAT32, *shape)
            val copy = RuntimeTensors.copied(RuntimeTensors.input(tensor), ElementType.FLOAT32)
            assertContentEquals(shape, copy.shape)
        }
    }

    @Test
    fun `a result of another type than was said is refused`() {
        val value = RuntimeTensors.input(counting(ElementType.INT64, 3))
        val refusal = assertFailsWith<TrainerException> { RuntimeTensors.copied(value, ElementType.FLOAT32) }
        assertContains(refusal.message.orEmpty(), "a program returned INT64, its signature says float32")
        assertFailsWith<TrainerException> { RuntimeTensors.copied(EValue.from(1.5), ElementType.FLOAT32) }
    }

    @Test
    fun `what Java's tensors cannot hold is refused beforehand`() {
        fun spec(type: ElementType) = TensorSpec(Role.X, "x", listOf(TensorSpec.BATCH), type)
        passed.forEach { RuntimeTensors.checkType(spec(it)) }
        val refusal = assertFailsWith<TrainerException> { RuntimeTensors.checkType(spec(ElementType.BOOL)) }
        assertContains(refusal.message.orEmpty(), "x/x bool [batch] cannot be passed")
    }

    private fun counting(type: ElementType, vararg shape: Long): HostTensor {
        val tensor = HostTensor.zeros(type, *shape)
        for (place in 0 until tensor.data.capacity()) tensor.data.put(place, (place * 7 + 1).toByte())
        return tensor
    }

    private fun bytes(tensor: HostTensor) = ByteArray(tensor.data.capacity()) { tensor.data.get(it) }
}
