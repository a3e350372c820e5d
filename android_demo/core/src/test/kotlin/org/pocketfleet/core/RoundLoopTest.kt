package org.pocketfleet.core

import java.io.File
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertIs
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.json.JSONObject
import org.junit.After
import org.junit.Before
import org.junit.Rule as JUnitRule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class RoundLoopTest {
    @get:JUnitRule
    val folder = TemporaryFolder()
    private lateinit var service: TinyService

    @Before
    fun serve() = serve(TinyService())

    @After
    fun close() = service.close()

    private fun serve(tiny: TinyService) {
        if (::service.isInitialized) service.close()
        service = tiny
        TinyDevice.enrol(service, folder.root)
    }

    private fun device(numExamples: Int = 12) = TinyDevice(service, folder.root, numExamples = numExamples)

    @Test
    fun `a round is trained, counts once, and is remembered`() {
        val device = device()
        val outcome = assertIs<RoundOutcome.Reported>(device.visit())
        // 12 examples, 2 held out: 10 train, in 2 epochs of batches of 4, 4 and 2.
        assertEquals(6, outcome.steps)
        assertEquals(6, device.steps)
        val facts = service.facts.getValue(0)
        assertEquals(listOf("20", "6", "12"), listOf("num_examples", "steps", "examples_held").map(facts::getValue))
        assertEquals(outcome.trainLoss, facts.getValue("train_loss").toDouble())
        assertEquals(outcome.metricPersonalised, facts.getValue("metric_personalised").toDouble())
        assertTrue(outcome.metricPersonalised!! < outcome.metricGlobal!!, "training made it worse: $outcome")
        assertEquals(listOf("accepted"), device.store.rounds().map { it.outcome })
        assertTrue(device.trainers.single().isClosed)
        assertIs<RoundOutcome.TurnedAway>(device.visit())
        assertEquals(setOf(0L), service.counted.keys)
    }

    @Test
    fun `the update is the difference, the buffers are as they are, the own model is what was trained`() {
        val device = device()
        device.visit()
        val file = folder.newFile().apply { writeBytes(service.counted.getValue(0)) }
        val update = SafeTensors.read(file, 1 shl 16)
        val own = SafeTensors.read(assertNotNull(device.store.ownModel()), 1 shl 16)
        val trained = own.getValue("w").floats()
        assertEquals(listOf(trained[0] - 0.5f, trained[1] + 0.5f), update.getValue("w").floats().toList())
        assertEquals(6, update.getValue("seen").values().getLong(0))
        assertEquals(6, own.getValue("seen").values().getLong(0))
        assertEquals(LinearModel.entry(service.weights), assertNotNull(device.store.released()).weights)
        assertEquals(LinearModel.entry(service.model.files.getValue(Manifest.FILE)), device.store.bundle())
    }

    @Test
    fun `steps, batches and the seed are the assignment's`() {
        serve(TinyService { it.put("steps", 1).put("batch_size", 8) })
        val device = device()
        device.visit()
        // The first eight of ten in the permutation of epoch 0, and one step by hand.
        val places = Batches.of(10, 1, 8, Long.MAX_VALUE).single().map { ExampleSplit(12).training[it] }
        val batch = PlaneExamples(12).take(places.toIntArray())
        val start = LinearModel.weights(0.5f, -0.5f)
        val state = TrainState(Weights(start - "seen", start - "w", emptyMap()), emptyMap(), emptyMap(), emptyMap())
        val step = LinearTrainer().trainStep(state, batch, mapOf("learning_rate" to 0.1f), 0)
        val own = SafeTensors.read(assertNotNull(device.store.ownModel()), 1 shl 16)
        assertEquals(step.state.weights.trainable.getValue("w").floats().toList(), own.getValue("w").floats().toList())
        assertEquals("8", service.facts.getValue(0).getValue("num_examples"))
    }

    @Test
    fun `fedprox pulls to what was downloaded`() {
        fun trained(mu: Double): List<Float> {
            serve(
                TinyService(LinearModel(proximal = true)) {
                    it.put("algorithm", "fedprox").put("algorithm_options", JSONObject().put("proximal_mu", mu))
                },
            )
            val device = device()
            assertIs<RoundOutcome.Reported>(device.visit())
            return SafeTensors.read(device.store.ownModel()!!, 1 shl 16).getValue("w").floats().toList()
        }
        val (free, held) = trained(0.0) to trained(5.0)
        assertTrue(Math.abs(held[0] - 0.5f) < Math.abs(free[0] - 0.5f) / 2, "$held is not held, $free free")
    }

    @Test
    fun `what this app does not do is refused and named`() {
        for ((field, value, named) in listOf(
            Triple("algorithm", "scaffold", "the algorithm scaffold"),
            Triple("codec", "qsgd", "the codec qsgd"),
            Triple("codec", "masked", "the codec masked"),
            Triple("codec_options", JSONObject().put("bits", 8), "the codec lossless: it has no options, got bits"),
            Triple("download_bits", 3, "weights of 3 bits"),
            Triple("program", "onnx", "the program onnx"),
            Triple("batch_size", 9, "batches of 9"),
            Triple("update_bytes", 7, "an update of 7 bytes"),
            Triple("hyper", JSONObject(), "a step without learning_rate"),
            Triple("epochs", 0, "0 steps"),
        )) {
            serve(TinyService { it.put(field, value) })
            val device = device()
            val outcome = assertIs<RoundOutcome.Dropped>(device.visit())
            assertTrue(named in outcome.reason, "$field: ${outcome.reason}")
            assertEquals(0, device.steps)
            assertNull(device.store.work())
        }
    }

    @Test
    fun `fedprox needs a program with its term`() {
        val options = JSONObject().put("proximal_mu", 1)
        serve(TinyService { it.put("algorithm", "fedprox").put("algorithm_options", options) })
        val outcome = assertIs<RoundOutcome.Dropped>(device().visit())
        assertTrue("without the proximal term" in outcome.reason, outcome.reason)
    }

    @Test
    fun `who holds out nothing reports no metrics and is asked for no evaluation`() {
        val outcome = assertIs<RoundOutcome.Reported>(device(numExamples = 4).visit())
        assertNull(outcome.metricGlobal)
        assertFalse("metric_global" in service.facts.getValue(0))
    }

    @Test
    fun `who forgot everything can enrol and train again in the same process`() {
        val device = device()
        assertIs<RoundOutcome.Reported>(device.visit())
        device.store.forget()
        assertEquals(RoundOutcome.Revoked, device.visit())
        service.counted.clear()
        device.store.keep(Credential(service.url, "d", TinyService.CREDENTIAL))
        assertIs<RoundOutcome.Reported>(device.visit())
        assertEquals(setOf(1L), service.counted.keys)
        assertEquals(listOf(1L), device.store.rounds().map { it.assignmentId })
    }

    @Test
    fun `the first round at another service is remembered beside the last one before`() {
        assertIs<RoundOutcome.Reported>(device().visit())
        device().store.dropCredential()
        serve(TinyService())
        val later = TinyDevice(service, folder.root, clock = FakeClock(nowS = 5000.0))
        assertIs<RoundOutcome.Reported>(later.visit())
        assertEquals(listOf(0L, 0L), later.store.rounds().map { it.assignmentId })
    }

    @Test
    fun `two versions are measured on what is held out`() {
        service.evaluates = true
        val device = device()
        assertEquals(RoundOutcome.Evaluated(0), device.visit())
        val said = service.evaluations.single()
        val held = PlaneExamples(12).take(intArrayOf(4, 9))
        fun mean(tensors: Tensors): Float {
            val weights = Weights(tensors - "seen", tensors - "w", emptyMap())
            return LinearTrainer().evaluate(weights, held).getValue("absolute_error")
        }
        assertEquals(2, said.getInt("num_held_out"))
        assertEquals(mean(LinearModel.weights(0.5f, -0.5f)).toDouble(), said.getDouble("tried"))
        assertEquals(mean(LinearModel.weights(0f, 0f)).toDouble(), said.getDouble("released"))
        assertEquals(0, device.steps)
        // The programs are in their folder, and of the files only the two versions stay.
        val versions = listOf(service.weights, service.model.files.getValue(Manifest.WEIGHTS_FILE))
        assertEquals(versions.map { FileHash.of(it) }.toSet(), File(folder.root, "files").list()!!.toSet())
    }

    @Test
    fun `values that are no finite numbers are never reported`() {
        serve(TinyService { it.put("hyper", JSONObject().put("learning_rate", 1e30)) })
        assertEquals(RoundOutcome.Dropped("not_finite"), device().visit())
        assertTrue(service.counted.isEmpty())
    }

    @Test
    fun `a device that was turned away is told why and when to come`() {
        for ((reason, afterS) in listOf("upgrade" to null, "privacy_spent" to null, "no_codec" to null, "paused" to 2.5)) {
            val away = JSONObject().put("reason", reason).put("message", "m")
            service.turnedAway = away.put("retry_after_s", afterS ?: JSONObject.NULL)
            assertEquals(RoundOutcome.TurnedAway(reason, "m", afterS), device().visit())
        }
    }
}
