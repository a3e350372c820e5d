package org.pocketfleet.trainer

import org.junit.Test
import java.io.File
import kotlin.test.assertTrue

/** Programs take memory that the JVM does not see: it is given back when a trainer is closed. */
class NativeMemoryTest {
    @Test
    fun `a closed trainer gives its memory back`() {
        val case = ReferenceCase.of("mnist")
        val batch = case.batches(case.seeds.first()).first()
        val state = started(case.bundle)
        fun visit() = ExecutorchTrainer.open(case.bundle).use { it.trainStep(state, batch, case.hyper, 1) }
        repeat(WARM_UP) { visit() }
        val before = residentBytes()
        repeat(VISITS) { visit() }
        val grown = residentBytes() - before
        val kept = VISITS * case.bundle.manifest.memory.trainStepBytes
        println("$VISITS trainers: $grown bytes more are resident; kept, their arenas would be $kept")
        assertTrue(grown < kept / 4, "$grown bytes more are resident, of $kept")
    }

    @Test
    fun `many calls leave nothing behind`() {
        val case = ReferenceCase.of("terms")
        val batch = case.batches(case.seeds.first()).first()
        val weights = case.bundle.firstWeights()
        ExecutorchTrainer.open(case.bundle).use { trainer ->
            val resident = List(STRETCHES + 1) {
                repeat(CALLS) { trainer.predict(weights, batch.x) }
                residentBytes()
            }
            // The JVM's own compiler takes memory too, but not for ever; what leaks, leaks in every stretch.
            val grown = resident.zipWithNext { before, after -> after - before }.min()
            println("$CALLS calls: $grown bytes more are resident")
            // A reference or an argument that stayed would be 8 bytes and more for each of some 20 a call.
            assertTrue(grown < CALLS * 20L * 8, "$grown bytes more are resident after $CALLS calls")
        }
    }

    /** What Linux says of this process, after the collector ran. */
    private fun residentBytes(): Long {
        repeat(2) { System.gc() }
        val line = File("/proc/self/status").readLines().single { it.startsWith("VmRSS:") }
        return line.filter(Char::isDigit).toLong() * 1024
    }

    private companion object {
        const val WARM_UP = 20
        const val VISITS = 100
        const val CALLS = 20_000
        const val STRETCHES = 4
    }
}
