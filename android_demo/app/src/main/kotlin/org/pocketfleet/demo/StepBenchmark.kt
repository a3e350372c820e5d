package org.pocketfleet.demo

import org.pocketfleet.core.Batch
import org.pocketfleet.core.Draws
import org.pocketfleet.core.ElementType
import org.pocketfleet.core.HostTensor
import org.pocketfleet.core.Role
import org.pocketfleet.core.TensorSpec
import org.pocketfleet.core.TrainState
import org.pocketfleet.core.Trainer
import org.pocketfleet.core.VerifiedBundle
import kotlin.math.PI
import kotlin.math.abs
import kotlin.math.cos
import kotlin.math.ln
import kotlin.math.sqrt

/** The bundle cannot be timed: its loss is not finite, or another one the second time. */
class BenchmarkException(message: String) : Exception(message)

/**
 * Training steps of a bundle, timed by the rules of `pocketfleet bench`: every step is the same work, from the same
 * state, on drawn inputs.
 *
 * Meant for a process of its own, in which nothing else ran before.
 *
 * @param nanos a clock that never goes back.
 * @param threads that [open] computes on.
 */
class StepBenchmark(
    private val rules: BenchmarkRules,
    private val threads: Int,
    private val nanos: () -> Long,
    private val open: (VerifiedBundle) -> Trainer,
) {
    /**
     * Time the largest batch, whose memory is told, and then every power of two below it.
     *
     * @param goOn asked between steps; false ends it.
     * @return null: it was ended.
     * @throws BenchmarkException the loss is not finite, or a step did not repeat itself.
     */
    fun run(facts: BundleFacts, goOn: () -> Boolean): ProcessRun? {
        val bundle = facts.bundle
        val start = TrainState.first(bundle.manifest.signature.trainStep, bundle.firstWeights())
        val most = bundle.manifest.maxBatch
        val sizes = listOf(most) + generateSequence(1) { it * 2 }.takeWhile { it < most }
        val idleBytes = ProcessMemory.residentBytes()
        ProcessMemory.forgetPeak()
        val began = nanos()
        return open(bundle).use { trainer ->
            val opened = nanos()
            step(trainer, bundle, start, inputs(bundle, most))
            val firstS = seconds(opened)
            val steps = mutableListOf(timed(trainer, facts, start, most, goOn) ?: return null)
            val peakBytes = ProcessMemory.peakBytes()
            for (size in sizes.drop(1)) steps += timed(trainer, facts, start, size, goOn) ?: return null
            ProcessRun(threads, (opened - began) / NANOS, firstS, idleBytes, peakBytes, steps)
        }
    }

    private fun timed(
        trainer: Trainer,
        facts: BundleFacts,
        start: TrainState,
        size: Int,
        goOn: () -> Boolean,
    ): StepTimes? {
        val batch = inputs(facts.bundle, size)
        val one = { step(trainer, facts.bundle, start, batch) }
        val expected = one()
        if (!expected.isFinite()) {
            throw BenchmarkException("the first step's loss is $expected on drawn inputs, batch $size: no time can be told")
        }
        repeat(rules.warmUpSteps) { one() }
        val all = mutableListOf<Double>()
        val began = nanos()
        while (all.size < rules.leastSteps || seconds(began) < rules.leastS) {
            if (!goOn()) return null
            val before = nanos()
            one()
            all += seconds(before)
        }
        val found = one()
        if (abs(found - expected) > LOSS_TOLERANCE * (1 + abs(expected))) {
            throw BenchmarkException("the same step gave a loss of $expected, and later of $found (batch $size)")
        }
        val latency = Latency.of(all)
        return StepTimes(size, latency, facts.stepFlops(size) / latency.medianS)
    }

    private fun step(trainer: Trainer, bundle: VerifiedBundle, start: TrainState, batch: Batch): Float =
        trainer.trainStep(start, batch, bundle.manifest.hyper.mapValues { it.value.toFloat() }, dropoutSeed = 0).loss

    private fun seconds(since: Long): Double = (nanos() - since) / NANOS

    companion object {
        private const val NANOS = 1e9

        // Summing in another order on other threads moves a loss's last bits, no more.
        private const val LOSS_TOLERANCE = 1e-4

        /** Drawn [size] examples: standard normal numbers, 0 where the model counts, and targets of 0. */
        fun inputs(bundle: VerifiedBundle, size: Int): Batch {
            val specs = bundle.manifest.signature.trainStep
            return Batch(made(specs.inputs(Role.X).single(), size), made(specs.inputs(Role.Y).single(), size))
        }

        private fun made(spec: TensorSpec, size: Int): HostTensor {
            val tensor = HostTensor.zeros(spec.type, *spec.sizes(size.toLong()))
            if (spec.role == Role.X && spec.type == ElementType.FLOAT32) {
                tensor.values().asFloatBuffer().put(normal(tensor.count.toInt()))
            }
            return tensor
        }

        /** Box and Muller's normal numbers from two uniform ones each, of which the first is never 0. */
        private fun normal(count: Int): FloatArray {
            val drawn = Draws.uniform(Draws.key(0, "bench_inputs"), 2 * count)
            return FloatArray(count) {
                (sqrt(-2 * ln(1 - drawn[2 * it])) * cos(2 * PI * drawn[2 * it + 1])).toFloat()
            }
        }
    }
}
