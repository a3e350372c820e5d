package org.pocketfleet.demo

/** Seconds of a step over [steps] timed ones. */
data class Latency(val steps: Int, val medianS: Double, val p95S: Double, val minimumS: Double) {
    companion object {
        /** Of single steps' seconds; between two of them a percentile lies on the line, as numpy has it. */
        fun of(seconds: List<Double>): Latency {
            val sorted = seconds.sorted()
            return Latency(sorted.size, percentile(sorted, 0.5), percentile(sorted, 0.95), sorted.first())
        }

        private fun percentile(sorted: List<Double>, share: Double): Double {
            val place = share * (sorted.size - 1)
            val below = place.toInt()
            val above = minOf(below + 1, sorted.size - 1)
            return sorted[below] + (place - below) * (sorted[above] - sorted[below])
        }
    }
}

/** One batch size; [flopsPerS] counts the operations that the program's operators need. */
data class StepTimes(val batch: Int, val latency: Latency, val flopsPerS: Double) {
    val examplesPerS: Double get() = batch / latency.medianS
}

/** One fresh process; the first of [steps] is the batch whose memory is told. */
data class ProcessRun(
    val threads: Int,
    val loadS: Double,
    val firstStepS: Double,
    val idleRssBytes: Long,
    val peakRssBytes: Long,
    val steps: List<StepTimes>,
)

/** How long each figure is measured: until both least numbers are reached. */
data class BenchmarkRules(val warmUpSteps: Int = 5, val leastSteps: Int = 20, val leastS: Double = 1.0)
