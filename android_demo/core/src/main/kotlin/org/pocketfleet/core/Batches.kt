package org.pocketfleet.core

/**
 * Which examples make up which batch, and how they are counted: a function of the assignment alone.
 *
 * Epoch `e` visits the examples in the permutation of the key of (batch seed, `epoch`, `e`); its batches are
 * consecutive runs, the last of which may be shorter; work in steps goes on through as many epochs as it takes.
 */
object Batches {
    /** Steps that [epochs] passes over [numExamples] take. */
    fun stepsOfEpochs(numExamples: Int, epochs: Long, batchSize: Int): Long =
        Math.multiplyExact(epochs, stepsAnEpoch(numExamples, batchSize))

    /** Examples seen in the first [steps] batches, repeats counted: an update's weight. */
    fun examplesProcessed(numExamples: Int, steps: Long, batchSize: Int): Long {
        // Without examples there are no steps either.
        val anEpoch = stepsAnEpoch(numExamples, batchSize).coerceAtLeast(1)
        // The rest stops short of an epoch's last batch, so its batches are full.
        return Math.addExact(Math.multiplyExact(steps / anEpoch, numExamples.toLong()), steps % anEpoch * batchSize)
    }

    /**
     * The batches of [steps] steps, lazily: places among the [numExamples] that train, 1 to [batchSize] each.
     *
     * @throws IllegalArgumentException there are no examples but steps are wanted, or batches of none.
     */
    fun of(numExamples: Int, steps: Long, batchSize: Int, batchSeed: Long): Sequence<IntArray> {
        require(numExamples > 0 || steps == 0L) { "no examples to make batches of" }
        val anEpoch = stepsAnEpoch(numExamples, batchSize)
        return sequence {
            var order = IntArray(0)
            for (step in 0 until steps) {
                val start = (step % anEpoch).toInt() * batchSize
                if (start == 0) order = Draws.permutation(Draws.key(batchSeed, "epoch", step / anEpoch), numExamples)
                yield(order.copyOfRange(start, minOf(start.toLong() + batchSize, numExamples.toLong()).toInt()))
            }
        }
    }

    /** What the masks of one step are drawn from. */
    fun dropoutSeed(batchSeed: Long, step: Long): Long = Draws.key(batchSeed, "dropout", step)

    private fun stepsAnEpoch(numExamples: Int, batchSize: Int): Long {
        require(batchSize >= 1) { "a batch holds 1 example or more, got $batchSize" }
        require(numExamples >= 0) { "there are 0 examples or more, got $numExamples" }
        return (numExamples.toLong() + batchSize - 1) / batchSize
    }
}

/** Which of [count] examples, in their order of arrival, train and which are held out: every fifth. */
class ExampleSplit(val count: Int) {
    /** Places of those that train. */
    val training: IntArray = (0 until count).filterNot(::isHeldOut).toIntArray()

    /** Places of those that measure models and never train one; none of fewer than five. */
    val heldOut: IntArray = (0 until count).filter(::isHeldOut).toIntArray()

    private fun isHeldOut(place: Int) = place % HELD_OUT_ONE_IN == HELD_OUT_ONE_IN - 1

    companion object {
        const val HELD_OUT_ONE_IN = 5
    }
}
