package org.pocketfleet.trainer

import org.junit.Test
import org.pocketfleet.core.Batch
import org.pocketfleet.core.ElementType
import org.pocketfleet.core.SafeTensors
import org.pocketfleet.core.Tensors
import org.pocketfleet.core.Weights
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
        ExecutorchTrainer.open(case.bundle).use { trainer ->
            val runs = case.seeds.map { seed -> seed to trained(trainer, case, seed) }
            val start = case.bundle.firstWeights().trainable
            checkErrors("$name: updates", runs.map { (seed, end) ->
                relativeError(delta(start, end), case.tensors(seed, "update").filterKeys(start::containsKey))
            })
            for ((seed, end) in runs) checkBuffers(case, seed, end.buffers, start.keys)
            checkErrors("$name: predictions of what was trained here", runs.map { (seed, end) ->
                relativeError(predicted(trainer, case, seed, end), outputs(case, seed))
            })
            for (seed in case.seeds) checkForward(trainer, case, seed)
        }
    }

    /** Statistics are as the update says, counts exactly. */
    private fun checkBuffers(case: ReferenceCase, seed: Long, buffers: Tensors, trainable: Set<String>) {
        val expected = case.tensors(seed, "update") - trainable
        assertEquals(expected.keys, buffers.keys)
        for ((name, value) in expected) {
            val error = relativeError(mapOf(name to buffers.getValue(name)), mapOf(name to value))
            val allowed = if (value.type == ElementType.FLOAT32) MEDIAN else 0.0
            assertTrue(error <= allowed, "${case.name}, seed $seed: $name is off by $error, at most $allowed")
        }
    }

    /** Rounding is not PyTorch's, and a step of training makes more of it: of single runs so much is allowed. */
    private fun checkErrors(what: String, errors: List<Double>) {
        println("$what: relative errors ${errors.sorted()}")
        assertTrue(errors.all { it <= EACH }, "$what are off by $errors: each must be at most $EACH")
        assertTrue(errors.sorted()[errors.size / 2] <= MEDIAN, "$what are off by $errors: half at most by $MEDIAN")
    }

    /** By the very weights that PyTorch came to, outputs, loss and metrics are PyTorch's. */
    private fun checkForward(trainer: ExecutorchTrainer, case: ReferenceCase, seed: Long) {
        val weights = case.trained(seed)
        val error = relativeError(predicted(trainer, case, seed, weights), outputs(case, seed))
        assertTrue(error <= FORWARD, "${case.name}, seed $seed: predictions are off by $error, at most $FORWARD")
        val expected = case.tensors(seed, "predicted").filterKeys { it.startsWith(EVALUATED) }
        val evaluated = trainer.evaluate(weights, heldOut(case, seed))
        assertEquals(expected.keys, evaluated.keys.map { EVALUATED + it }.toSet())
        for ((name, value) in expected) {
            val wanted = value.floats().single()
            val found = evaluated.getValue(name.removePrefix(EVALUATED))
            assertEquals(wanted, found, FORWARD.toFloat() * maxOf(1f, wanted), "${case.name}, seed $seed: $name")
        }
    }

    private fun heldOut(case: ReferenceCase, seed: Long): Batch =
        case.tensors(seed, "examples").let { Batch(it.getValue("held_x"), it.getValue("held_y")) }

    private fun predicted(trainer: ExecutorchTrainer, case: ReferenceCase, seed: Long, weights: Weights): Tensors =
        mapOf(OUTPUT to trainer.predict(weights, heldOut(case, seed).x))

    private fun outputs(case: ReferenceCase, seed: Long): Tensors =
        case.tensors(seed, "predicted").filterKeys { it == OUTPUT }

    private companion object {
        const val STEPS = 50L
        const val SEVERAL = 5

        // What the app promises of its numbers.
        const val EACH = 1e-3
        const val MEDIAN = 1e-5
        const val FORWARD = 1e-5
        const val OUTPUT = "output"
        const val EVALUATED = "evaluated/"
    }
}
