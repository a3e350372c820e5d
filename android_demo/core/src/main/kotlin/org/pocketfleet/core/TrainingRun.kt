package org.pocketfleet.core

import kotlin.coroutines.coroutineContext
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.ensureActive

/** Hears of each step, from the thread that trains. */
fun interface StepListener {
    /** [step] of [steps] is done, counted from 1; [loss] is the batch's mean before it. */
    fun onStep(round: Long, step: Long, steps: Long, loss: Float)
}

/** Asked between any two things that are computed: cancellation, the deadline, and the rule for what runs already. */
internal class Gate(
    private val sensors: Sensors,
    private val clock: Clock,
    private val rule: Rule,
    private val numExamples: Int,
    private val neededMemoryBytes: Long,
    private val deadlineS: Double,
) {
    /**
     * Why what runs must stop now; null: it may go on.
     *
     * @throws GivenUp the deadline is over.
     * @throws CancellationException the coroutine was cancelled.
     */
    suspend fun stop(): Ineligible? {
        coroutineContext.ensureActive()
        if (clock.elapsedS() >= deadlineS) throw GivenUp("deadline")
        return Eligibility.judge(rule, sensors.read(), numExamples.toLong(), neededMemoryBytes, training = true)
    }
}

/**
 * What came of a training: [steps] of them were done on [numExamples] examples, repeats counted.
 *
 * [trainLoss] is the mean of the steps' losses. [stoppedBy] is null where all of it was done: [GivenUp] of the phone's
 * word, or the coroutine's [CancellationException], which is to be thrown whatever becomes of the steps.
 */
internal class Trained(
    val weights: Weights,
    val steps: Long,
    val numExamples: Long,
    val trainLoss: Double,
    val stoppedBy: Exception?,
)

/** The steps of one plan, one after the other, with a look at the gate before each. */
internal class TrainingRun(
    private val trainer: Trainer,
    private val plan: TrainingPlan,
    private val examples: ExampleSource,
    private val gate: Gate,
    private val listener: StepListener,
) {
    /**
     * Train until all steps are done, the gate closes or the coroutine is cancelled, of which [Trained] tells.
     *
     * The weights that were downloaded are not changed.
     *
     * @throws GivenUp the deadline is over.
     */
    suspend fun run(): Trained {
        val assignment = plan.assignment
        val training = plan.split.training
        var state = plan.start()
        var losses = 0.0
        var done = 0L
        var stoppedBy: Exception? = null
        for (places in Batches.of(training.size, plan.steps, assignment.batchSize, assignment.batchSeed)) {
            stoppedBy = stop()
            if (stoppedBy != null) break
            val batch = examples.take(IntArray(places.size) { training[places[it]] })
            val result = trainer.trainStep(state, batch, plan.hyper, Batches.dropoutSeed(assignment.batchSeed, done))
            state = result.state
            losses += result.loss
            done += 1
            listener.onStep(assignment.round, done, plan.steps, result.loss)
        }
        val numExamples = Batches.examplesProcessed(training.size, done, assignment.batchSize)
        return Trained(state.weights, done, numExamples, losses / done, stoppedBy)
    }

    private suspend fun stop(): Exception? =
        try {
            gate.stop()?.let { GivenUp(it.word) }
        } catch (exc: CancellationException) {
            // Whoever has the steps keeps them first, and throws it then.
            exc
        }
}
