package org.pocketfleet.demo

import kotlin.test.Test
import kotlin.test.assertEquals

class LatencyTest {
    @Test
    fun `percentiles lie on the line between two steps, as numpy's`() {
        // numpy.percentile(range(1, 21), [50, 95]) is 10.5 and 19.05.
        val found = Latency.of((20 downTo 1).map(Int::toDouble))
        assertEquals(20, found.steps)
        assertEquals(10.5, found.medianS, 1e-12)
        assertEquals(19.05, found.p95S, 1e-12)
        assertEquals(1.0, found.minimumS)
    }

    @Test
    fun `a single step is all of them`() {
        assertEquals(Latency(1, 0.25, 0.25, 0.25), Latency.of(listOf(0.25)))
    }
}
