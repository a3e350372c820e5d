package org.pocketfleet.trainer

import org.json.JSONObject
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import org.pocketfleet.core.Batch
import org.pocketfleet.core.BundleException
import org.pocketfleet.core.FileHash
import org.pocketfleet.core.HostTensor
import org.pocketfleet.core.Manifest
import org.pocketfleet.core.StepResult
import org.pocketfleet.core.Weights
import java.io.File
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotEquals

class ExecutorchTrainerTest {
    @get:Rule
    val folder = TemporaryFolder()

    private val case = ReferenceCase.of("terms")
    private val seed = case.seeds.first()
    private val first: Batch get() = case.batches(seed).first()

    @Test
    fun `the same call gives the same numbers, and what it gave before stays`() = open { trainer ->
        val results = List(3) { trainer.step(first) }
        val before = results[0].state.weights.trainable.mapValues { it.value.floats() }
        for (again in results) {
            assertEquals(results[0].loss, again.loss)
            val weights = again.state.weights.trainable
            for ((name, value) in before) assertContentEquals(value, weights.getValue(name).floats(), name)
        }
        trainer.step(case.batches(seed).elementAt(1))
        for ((name, value) in before) {
            assertContentEquals(value, results[0].state.weights.trainable.getValue(name).floats(), name)
        }
    }

    @Test
    fun `a call changes nothing that it was given`() = open { trainer ->
        val state = started(case.bundle)
        val given = with(state) { weights.trainable + weights.buffers + slots + correction + weights.frozen }
        val before = given.mapValues { numbers(it.value) }
        trainer.trainStep(state, first, case.hyper, 1)
        trainer.predict(state.weights, first.x)
        for ((name, value) in given) assertContentEquals(before.getValue(name), numbers(value), name)
    }

    @Test
    fun `masks are the seed's`() = open { trainer ->
        assertEquals(trainer.step(first, 7).loss, trainer.step(first, 7).loss)
        assertNotEquals(trainer.step(first, 7).loss, trainer.step(first, 8).loss)
    }

    @Test
    fun `batches of one to the largest are taken, no other`() = open { trainer ->
        val weights = case.bundle.firstWeights()
        for (size in listOf(1, case.batchSize)) {
            assertEquals(size.toLong(), trainer.predict(weights, zeros(size)).shape[0])
        }
        for (size in listOf(0, case.batchSize + 1)) {
            val refusal = assertFailsWith<IllegalArgumentException> { trainer.predict(weights, zeros(size)) }
            assertContains(refusal.message.orEmpty(), "1 to ${case.batchSize} examples in this bundle, got $size")
        }
    }

    @Test
    fun `other tensors than the program's are refused by name`() = open { trainer ->
        val weights = case.bundle.firstWeights()
        val (name, value) = weights.trainable.entries.first()
        val wrong = mapOf(
            "got float32 [4, 7]" to { trainer.predict(weights, HostTensor.of(FloatArray(28), 4, 7)) },
            "got int64 [4, 6]" to { trainer.predict(weights, HostTensor.of(LongArray(24), 4, 6)) },
            "trainable/$name" to { trainer.predict(without(weights, name), zeros(4)) },
            "got float32 [${value.count + 1}]" to {
                val larger = HostTensor.of(FloatArray(value.count.toInt() + 1), value.count + 1)
                val grown = Weights(weights.trainable + (name to larger), weights.buffers, weights.frozen)
                trainer.predict(grown, zeros(4))
            },
            "hyper/learning_rate" to { trainer.trainStep(started(case.bundle), first, emptyMap(), 1) },
            "y int64 [batch]" to {
                trainer.evaluate(weights, Batch(zeros(4), HostTensor.of(LongArray(3), 3)))
            },
        )
        for ((told, call) in wrong) {
            assertContains(assertFailsWith<IllegalArgumentException>(told) { call() }.message.orEmpty(), told)
        }
        // And it goes on.
        trainer.predict(weights, zeros(4))
    }

    @Test
    fun `another bundle's program is refused, though the hashes are right`() {
        val mixed = copy("terms")
        ReferenceCase.of("moments").bundle.program.copyTo(File(mixed, Manifest.PTE_FILE), overwrite = true)
        rehash(mixed, Manifest.PTE_FILE)
        ExecutorchTrainer.open(ReferenceCase.verified(mixed)).use { trainer ->
            val weights = case.bundle.firstWeights()
            val refusal = assertFailsWith<TrainerException> { trainer.predict(weights, zeros(4)) }
            assertContains(refusal.message.orEmpty(), "ExecuTorch refused to run predict")
            assertFailsWith<TrainerException> { trainer.step(first) }
        }
    }

    @Test
    fun `what is no program is refused when it is opened`() {
        val broken = copy("terms")
        val program = File(broken, Manifest.PTE_FILE)
        program.writeBytes(program.readBytes().apply { fill(0, 0, size / 2) })
        assertFailsWith<BundleException> { ReferenceCase.verified(broken) }
        rehash(broken, Manifest.PTE_FILE)
        val refusal = assertFailsWith<TrainerException> { ExecutorchTrainer.open(ReferenceCase.verified(broken)) }
        assertContains(refusal.message.orEmpty(), "ExecuTorch cannot load model.pte")
    }

    @Test
    fun `a closed trainer runs nothing, and closes twice`() {
        val trainer = ExecutorchTrainer.open(case.bundle)
        trainer.close()
        trainer.close()
        assertFailsWith<IllegalStateException> { trainer.predict(case.bundle.firstWeights(), zeros(1)) }
    }

    @Test
    fun `with more threads the numbers are the same`() {
        val alone = ExecutorchTrainer.open(case.bundle, threads = 1).use { it.step(first).loss }
        assertEquals(alone, ExecutorchTrainer.open(case.bundle, threads = 2).use { it.step(first).loss })
    }

    private fun open(body: (ExecutorchTrainer) -> Unit) = ExecutorchTrainer.open(case.bundle).use(body)

    private fun ExecutorchTrainer.step(batch: Batch, dice: Long = 1): StepResult =
        trainStep(started(case.bundle), batch, case.hyper, dice)

    private fun zeros(examples: Int) =
        HostTensor.of(FloatArray(examples * FEATURES), examples.toLong(), FEATURES.toLong())

    private fun without(weights: Weights, name: String) =
        Weights(weights.trainable - name, weights.buffers, weights.frozen)

    private fun copy(name: String): File {
        val copy = folder.newFolder()
        ReferenceCase.of(name).bundle.folder.copyRecursively(copy, overwrite = true)
        return copy
    }

    /** The manifest told anew what one of its files is: an attacker who has the manifest too. */
    private fun rehash(bundle: File, name: String) {
        val file = File(bundle, name)
        val manifest = File(bundle, Manifest.FILE)
        val json = JSONObject(manifest.readText())
        json.getJSONObject("files").getJSONObject(name).put("bytes", file.length()).put("sha256", FileHash.of(file))
        manifest.writeText(json.toString())
    }

    private companion object {
        const val FEATURES = 6
    }
}
