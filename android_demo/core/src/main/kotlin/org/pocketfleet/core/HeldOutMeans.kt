package org.pocketfleet.core

import kotlin.math.min

/** The gate closed while models were measured. */
internal class StoppedMeasuring(val why: Ineligible) : Exception(why.word)

/** How well models do on the examples that the device holds out. */
internal class HeldOutMeans(
    private val trainer: Trainer,
    private val examples: ExampleSource,
    private val split: ExampleSplit,
    private val batchSize: Int,
    private val gate: Gate,
) {
    /**
     * Loss and metrics as means over the examples, by name; empty where none are held out.
     *
     * @throws StoppedMeasuring the phone must stop.
     */
    suspend fun of(weights: Weights): Map<String, Double> {
        val totals = LinkedHashMap<String, Double>()
        for (start in split.heldOut.indices step batchSize) {
            gate.stop()?.let { throw StoppedMeasuring(it) }
            val places = split.heldOut.copyOfRange(start, min(start + batchSize, split.heldOut.size))
            for ((name, value) in trainer.evaluate(weights, examples.take(places))) {
                totals[name] = (totals[name] ?: 0.0) + value.toDouble() * places.size
            }
        }
        return totals.mapValues { it.value / split.heldOut.size }
    }
}
