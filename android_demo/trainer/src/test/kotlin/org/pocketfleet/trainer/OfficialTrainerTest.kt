package org.pocketfleet.trainer

import org.junit.Test
import org.pocketfleet.core.Batch
import org.pocketfleet.core.Weights
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** ExecuTorch's own TrainingModule and SGD, by the same batches as our training step. */
class OfficialTrainerTest {
    private val case = ReferenceCase.of("official")

    private val terms = SgdTerms(
        learningRate = case.hyper.getValue("learning_rate").toDouble(),
        momentum = case.hyper.getValue("momentum").toDouble(),
        weightDecay = case.hyper.getValue("weight_decay").toDouble(),
        nesterov = true,
    )

    @Test
    fun `its updates are PyTorch's`() {
        val errors = case.seeds.map { seed ->
            OfficialTrainer.open(case.bundle, terms).use { trainer ->
                val start = trainer.weights()
                val steps = case.batches(seed).map(trainer::step).count()
                assertEquals(case.steps, steps.toLong())
                val end = Weights(trainer.weights(), emptyMap(), emptyMap())
                relativeError(delta(start, end), case.tensors(seed, "update"))
            }
        }
        println("official: relative errors of updates ${errors.sorted()}")
        assertTrue(errors.all { it <= 1e-3 } && errors.sorted()[errors.size / 2] <= 1e-5, "$errors")
    }

    @Test
    fun `it starts from the bundle's first weights`() = OfficialTrainer.open(case.bundle, terms).use { trainer ->
        assertTrue(relativeError(trainer.weights(), case.bundle.firstWeights().trainable) <= 1e-6)
    }

    @Test
    fun `weights that were asked for stay as they were`() = OfficialTrainer.open(case.bundle, terms).use { trainer ->
        val before = trainer.weights()
        val copied = before.mapValues { it.value.floats() }
        trainer.step(case.batches(0).first())
        for ((name, value) in copied) assertTrue(value.contentEquals(before.getValue(name).floats()), name)
        assertTrue(relativeError(trainer.weights(), before) > 0)
    }

    @Test
    fun `a batch of another size is refused`() = OfficialTrainer.open(case.bundle, terms).use { trainer ->
        val batch = case.batches(0).first()
        val smaller = Batch(rows(batch.x, intArrayOf(0, 1)), rows(batch.y, intArrayOf(0, 1)))
        val refusal = assertFailsWith<IllegalArgumentException> { trainer.step(smaller) }
        assertContains(refusal.message.orEmpty(), "exactly ${case.batchSize} examples in this program, got 2")
    }

    @Test
    fun `a bundle without the joint graph is refused`() {
        val refusal = assertFailsWith<IllegalArgumentException> {
            OfficialTrainer.open(ReferenceCase.of("boston").bundle, terms)
        }
        assertContains(refusal.message.orEmpty(), "--training-module")
    }

    @Test
    fun `a closed trainer runs nothing`() {
        val trainer = OfficialTrainer.open(case.bundle, terms)
        trainer.close()
        trainer.close()
        assertFailsWith<IllegalStateException> { trainer.step(case.batches(0).first()) }
        assertFailsWith<IllegalStateException> { trainer.weights() }
    }
}
