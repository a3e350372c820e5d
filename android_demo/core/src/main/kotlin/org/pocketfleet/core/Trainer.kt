package org.pocketfleet.core

import java.io.Closeable

/** Examples [x] `[batch, ...]` with their targets [y] `[batch, ...]`. */
class Batch(val x: HostTensor, val y: HostTensor)

/** A model's tensors by full name: learnt, changed on the side by a step, and never changed. */
class Weights(val trainable: Tensors, val buffers: Tensors, val frozen: Tensors)

/**
 * All that a training step moves on or reads.
 *
 * [slots] are the optimizer's, zeros at first but for Adam's powers, which are ones; [anchor] is what a proximal term
 * pulls to; [correction] is added to the gradients, zeros where the algorithm has none. Each has the names that the
 * step's signature gives it.
 */
class TrainState(
    val weights: Weights,
    val slots: Tensors,
    val anchor: Tensors,
    val correction: Tensors,
) {
    companion object {
        // Products of the betas, which begin at their zeroth power.
        private val POWERS = setOf("beta1_power", "beta2_power")

        /** Before the first step from [weights]: slots at zero, Adam's powers at one, the anchor at the weights themselves. */
        fun first(step: MethodSignature, weights: Weights): TrainState = TrainState(
            weights = weights,
            slots = step.inputs(Role.SLOT).associate { it.name to slot(it) },
            anchor = step.inputs(Role.ANCHOR).associate { it.name to weights.trainable.getValue(it.name) },
            correction = step.inputs(Role.CORRECTION).associate { it.name to HostTensor.zeros(it.type, *it.sizes(1)) },
        )

        private fun slot(spec: TensorSpec): HostTensor =
            if (spec.name in POWERS) HostTensor.of(floatArrayOf(1f)) else HostTensor.zeros(spec.type, *spec.sizes(1))
    }
}

/** The mean loss before a step, and the state after it. */
class StepResult(val loss: Float, val state: TrainState)

/**
 * Runs the three methods of one bundle; holds no weights.
 *
 * Batches are of 1 to the bundle's `max_batch` examples. Inputs are not changed, results are the caller's own. Not to
 * be called from two threads at once.
 */
interface Trainer : Closeable {
    /** One step; [dropoutSeed] draws the masks of a model that drops. */
    fun trainStep(state: TrainState, batch: Batch, hyper: Map<String, Float>, dropoutSeed: Long): StepResult

    /** The model's output in evaluation mode, `[batch, ...]`. */
    fun predict(weights: Weights, x: HostTensor): HostTensor

    /** Mean loss and metrics over the batch by name; `loss` comes first. */
    fun evaluate(weights: Weights, batch: Batch): Map<String, Float>
}

/** Opens the programs of a bundle. */
fun interface TrainerFactory {
    /** A trainer on the programs of [bundle], whose files were found to be the ones that its manifest names. */
    fun open(bundle: VerifiedBundle): Trainer
}
