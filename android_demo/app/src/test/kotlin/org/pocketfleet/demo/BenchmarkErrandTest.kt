package org.pocketfleet.demo

import org.json.JSONObject
import org.junit.Rule
import org.junit.rules.TemporaryFolder
import java.io.File
import java.io.IOException
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertTrue

class BenchmarkErrandTest {
    @get:Rule
    val folder = TemporaryFolder()

    private val run = ProcessRun(1, 0.5, 0.25, 1, 2, listOf(StepTimes(8, Latency(20, 0.1, 0.2, 0.05), 1e9)))
    private val measured = Measured(run, JSONObject().put("kind", "pocketfleet-bench"))
    private val result get() = File(folder.root, "benchmark.json")
    private val error get() = File(folder.root, "benchmark.error.txt")

    private fun errand(post: ((ProcessRun) -> Unit)? = null, measure: () -> Measured) =
        BenchmarkErrand(folder.root) { _, _ -> }.run(measure, post)

    @Test
    fun `a result is written and told`() {
        val told = mutableListOf<ProcessRun>()
        errand(post = { told += it }) { measured }
        assertEquals("pocketfleet-bench", JSONObject(result.readText()).getString("kind"))
        assertEquals(listOf(run), told)
        assertFalse(error.exists())
    }

    @Test
    fun `whatever ends a measurement is told, and no result of an earlier one is left`() {
        val failures = listOf(OutOfMemoryError("heap"), UnsatisfiedLinkError("libexecutorch.so"), IOException("gone"))
        for (failure in failures) {
            result.writeText("{}")
            errand(post = { throw AssertionError("nothing to tell") }) { throw failure }
            assertEquals("no result: $failure\n", error.readText())
            assertFalse(result.exists())
        }
    }

    @Test
    fun `a service that was not told takes no result away`() {
        errand(post = { throw IOException("no route to host") }) { measured }
        assertTrue(result.exists())
        assertEquals(
            "benchmark.json is there, but the service was not told: java.io.IOException: no route to host\n",
            error.readText(),
        )
        errand { measured }
        assertFalse(error.exists())
    }
}
