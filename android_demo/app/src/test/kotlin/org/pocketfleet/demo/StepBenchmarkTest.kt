package org.pocketfleet.demo

import org.pocketfleet.core.Batch
import org.pocketfleet.core.FileEntry
import org.pocketfleet.core.FileHash
import org.pocketfleet.core.HostTensor
import org.pocketfleet.core.Manifest
import org.pocketfleet.core.StepResult
import org.pocketfleet.core.TrainState
import org.pocketfleet.core.Trainer
import org.pocketfleet.core.VerifiedBundle
import org.pocketfleet.core.Weights
import org.pocketfleet.trainer.ExecutorchTrainer
import java.io.File
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue

class StepBenchmarkTest {
    private val rules = BenchmarkRules(warmUpSteps = 2, leastSteps = 5, leastS = 0.0)

    private fun facts(name: String): BundleFacts {
        val folder = bundleFolder(name)
        val manifest = File(folder, Manifest.FILE)
        return BundleFacts(VerifiedBundle.verify(folder, FileEntry(FileHash.of(manifest), manifest.length())))
    }

    private fun benchmark(open: (VerifiedBundle) -> Trainer = { ExecutorchTrainer.open(it, 1) }) =
        StepBenchmark(rules, 1, System::nanoTime, open)

    /** The real trainer, with another loss at some of its calls. */
    private class Changed(private val real: Trainer, private val loss: (Int) -> Float?) : Trainer by real {
        private var calls = 0

        override fun trainStep(
            state: TrainState,
            batch: Batch,
            hyper: Map<String, Float>,
            dropoutSeed: Long,
        ): StepResult {
            val result = real.trainStep(state, batch, hyper, dropoutSeed)
            return loss(calls++)?.let { StepResult(it, result.state) } ?: result
        }

        override fun predict(weights: Weights, x: HostTensor) = real.predict(weights, x)
    }

    @Test
    fun `the largest batch comes first, then every power of two below it`() {
        for (name in listOf("boston", "mnist")) {
            val facts = facts(name)
            val run = assertNotNull(benchmark().run(facts) { true })
            val most = facts.bundle.manifest.maxBatch
            assertEquals(listOf(most) + listOf(1, 2, 4, 8, 16, 32).filter { it < most }, run.steps.map { it.batch })
            for (times in run.steps) {
                assertTrue(times.latency.steps >= rules.leastSteps)
                assertTrue(times.latency.minimumS > 0 && times.latency.minimumS <= times.latency.medianS)
                assertEquals(facts.stepFlops(times.batch), times.flopsPerS * times.latency.medianS, 1.0)
            }
            assertTrue(run.loadS > 0 && run.firstStepS > 0)
            assertTrue(run.peakRssBytes >= run.idleRssBytes && run.idleRssBytes > 1_000_000)
        }
    }

    @Test
    fun `a batch's examples differ, and are the same each time`() {
        val bundle = facts("mnist").bundle
        val (one, again) = List(2) { StepBenchmark.inputs(bundle, 4) }
        val values = one.x.floats()
        assertTrue(values.contentEquals(again.x.floats()))
        assertEquals(values.size, values.toSet().size)
        // 3,136 standard normal numbers: the mean is within 5 / sqrt(3136) = 0.09 of 0 but for one in a million.
        assertEquals(0.0, values.average(), 0.09)
    }

    @Test
    fun `a measurement that is stopped is none`() {
        var asked = 0
        assertNull(benchmark().run(facts("boston")) { asked++ < 3 })
        assertEquals(4, asked)
    }

    @Test
    fun `faster must not mean less`() {
        val later = assertFailsWith<BenchmarkException> {
            benchmark { Changed(ExecutorchTrainer.open(it, 1)) { call -> if (call == 9) 1e9f else null } }
                .run(facts("boston")) { true }
        }
        // Call 0 is the first step, 1 the expected loss, 2 and 3 warm up, 4 to 8 are timed, 9 is compared.
        assertTrue("and later of 1.0E9" in later.message.orEmpty(), later.message)
    }

    @Test
    fun `a loss that is no number cannot be timed`() {
        val refused = assertFailsWith<BenchmarkException> {
            benchmark { Changed(ExecutorchTrainer.open(it, 1)) { Float.NaN } }.run(facts("boston")) { true }
        }
        assertTrue("loss is NaN" in refused.message.orEmpty())
    }
}
