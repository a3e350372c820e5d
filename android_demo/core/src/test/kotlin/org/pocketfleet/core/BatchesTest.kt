package org.pocketfleet.core

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class BatchesTest {
    private val cases = RepositoryFile.json("tests/android_demo/cases/draws.json")

    @Test
    fun batchesArePythons() {
        val cases = cases.getJSONArray("batches").objects()
        assertTrue(cases.size >= 7)
        for (case in cases) {
            val batches = Batches.of(
                case.getInt("num_examples"),
                case.getLong("steps"),
                case.getInt("batch_size"),
                case.getLong("batch_seed"),
            ).toList()
            assertEquals(case.getJSONArray("first").ints(), batches.firstOrNull()?.toList().orEmpty())
            assertEquals(case.getJSONArray("sizes").ints(), batches.map { it.size })
            assertEquals(case.getString("digest"), DrawsTest.digest(batches.flatMap { it.toList() }.toIntArray()))
        }
    }

    @Test
    fun seedsOfMasksArePythons() {
        val cases = cases.getJSONArray("batches").objects()
        assertTrue(cases.sumOf { it.getInt("steps") } > 50)
        for (case in cases) {
            val seeds = (0 until case.getLong("steps")).map { Batches.dropoutSeed(case.getLong("batch_seed"), it) }
            val wanted = case.getJSONArray("dropout_seeds")
            assertEquals(List(wanted.length(), wanted::getString), seeds.map(DrawsTest::hexadecimal))
        }
    }

    @Test
    fun stepsAndExamplesAreCountedAsPythonCountsThem() {
        val rows = cases.getJSONArray("counts").arrays()
        assertTrue(rows.size >= 80)
        for (row in rows) {
            val (examples, epochs, batchSize) = row.ints()
            assertEquals(row.getLong(3), Batches.stepsOfEpochs(examples, epochs.toLong(), batchSize), "$row")
            assertEquals(row.getLong(5), Batches.examplesProcessed(examples, row.getLong(4), batchSize), "$row")
        }
    }

    @Test
    fun theSameExamplesAreHeldOutAsInPython() {
        val cases = cases.getJSONArray("held_out").objects()
        assertTrue(cases.size >= 7)
        for (case in cases) {
            val split = ExampleSplit(case.getInt("count"))
            assertEquals(case.getJSONArray("training").ints(), split.training.toList())
            assertEquals(case.getJSONArray("held_out").ints(), split.heldOut.toList())
        }
    }

    @Test
    fun batchesAreMadeOneAtATime() {
        // As many as would never fit into memory.
        val batches = Batches.of(numExamples = 3, steps = Long.MAX_VALUE, batchSize = 2, batchSeed = 1)
        assertEquals(listOf(2, 1, 2, 1), batches.take(4).map { it.size }.toList())
    }

    @Test
    fun impossibleBatchesAreRefused() {
        assertEquals("no examples to make batches of", failure { Batches.of(0, 1, 8, 1) })
        assertEquals("a batch holds 1 example or more, got 0", failure { Batches.of(5, 1, 0, 1) })
        assertEquals("there are 0 examples or more, got -1", failure { Batches.stepsOfEpochs(-1, 1, 8) })
        assertFailsWith<ArithmeticException> { Batches.stepsOfEpochs(9, Long.MAX_VALUE / 2, 1) }
    }

    private fun failure(block: () -> Unit): String? = assertFailsWith<IllegalArgumentException> { block() }.message
}
