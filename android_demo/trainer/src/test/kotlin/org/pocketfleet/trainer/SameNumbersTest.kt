package org.pocketfleet.trainer

import org.junit.Test
import org.pocketfleet.core.Batch
import org.pocketfleet.core.HostTensor
import org.pocketfleet.core.SafeTensors
import java.io.ByteArrayOutputStream
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertTrue

/** The same training as PyTorch's: from the same weights, with batches and masks that are drawn here. */
class SameNumbersTest {
    @Test
    fun `boston's updates are PyTorch's`() = check("boston")

    @Test
    fun `mnist's updates are PyTorch's`() = check("mnist")

    @Test
    fun `every term of a step and every role of an input is where it belongs`() = check("terms")

    @Test
    fun `Adam's moments go from step to step`() = check("moments")

    @Test
    fun `an update is written byte for byte as Python writes it`() {
        for (name in listOf("boston", "mnist", "terms", "moments")) {
            val case = ReferenceCase.of(name)
            for (seed in case.seeds) {
                val out = ByteArrayOutputStream()
                SafeTensors.write(case.tensors(seed, "update"), out)
                assertContentEquals(case.file(seed, "update").readBytes(), out.toByteArray(), "$name, seed $seed")
            }
        }
    }

    private fun check(name: String) {
        val case = ReferenceCase.of(name)
        assertTrue(case.seeds.size >= SEVERAL && case.steps == STEPS)
        val errors = ExecutorchTrainer.open(case.bundle).use { trainer ->
            case.seeds.map { seed -> checkedRun(trainer, case, seed) }
        }
        println("$name: relative errors of updates ${errors.sorted()}")
        assertTrue(errors.all { it <= EACH }, "$errors: each must be at most $EACH")
        assertTrue(errors.sorted()[errors.size / 2] <= MEDIAN, "$errors: their median must be at most $MEDIAN")
    }

    private fun checkedRun(trainer: ExecutorchTrainer, case: ReferenceCase, seed: Long): Double {
        val end = trained(trainer, case, seed)
        val examples = case.tensors(seed, "examples")
        val expected = case.tensors(seed, "predicted")
        val (x, y) = examples.getValue("held_x") to examples.getValue("held_y")
        checkPredicted(trainer.predict(end, x), expected.getValue("output"), "${case.name}, seed $seed")
        val evaluated = trainer.evaluate(end, Batch(x, y))
        val names = expected.keys.filter { it.startsWith("evaluated/") }.map { it.removePrefix("evaluated/") }
        assertEquals(names.toSet(), evaluated.keys)
        for (metric in names) {
            val wanted = expected.getValue("evaluated/$metric").floats().single()
            assertEquals(wanted, evaluated.getValue(metric), PREDICTED.toFloat() * maxOf(1f, wanted), "${case.name} $metric")
        }
        return relativeError(update(case.bundle.firstWeights().trainable, end), case.tensors(seed, "update"))
    }

    private fun checkPredicted(found: HostTensor, expected: HostTensor, what: String) {
        assertContentEquals(expected.shape, found.shape)
        val error = relativeError(mapOf("output" to found), mapOf("output" to expected))
        assertTrue(error <= PREDICTED, "$what: predictions are off by $error, at most $PREDICTED")
    }

    private companion object {
        const val STEPS = 50L
        const val SEVERAL = 5

        // What the app promises of its numbers.
        const val EACH = 1e-3
        const val MEDIAN = 1e-5
        const val PREDICTED = 1e-5
    }
}
