package org.pocketfleet.core

import java.io.File
import java.io.IOException
import kotlin.test.assertEquals
import kotlin.test.assertIs
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import org.junit.After
import org.junit.Before
import org.junit.Rule as JUnitRule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** The system takes the app's job away in the middle of a visit. */
class RoundLoopCancelTest {
    @get:JUnitRule
    val folder = TemporaryFolder()
    private var partialWork = "report"
    private var learningRate = 0.1
    private val service = TinyService {
        it.put("partial_work", partialWork).getJSONObject("hyper").put("learning_rate", learningRate)
    }

    @Before
    fun enrol() = TinyDevice.enrol(service, folder.root)

    @After
    fun close() = service.close()

    /** A visit that is cancelled in the middle of [step], and ends by that. */
    private fun cancelledIn(step: Int, disk: Disk = FaultyDisk()): TinyDevice {
        lateinit var visit: Job
        val device = TinyDevice(service, folder.root, disk, beforeStep = { if (it == step) visit.cancel() })
        cancelled(device) { visit = it }
        assertEquals(step, device.steps)
        assertTrue(device.trainers.single().isClosed)
        // What was measured before training; nothing was afterwards.
        assertEquals(1, device.trainers.single().evaluations)
        assertTrue(service.requests.none { it.startsWith("PUT reports/") }, "a cancelled visit went on")
        return device
    }

    private fun cancelled(device: TinyDevice, begun: (Job) -> Unit) = runBlocking {
        var ended: Throwable? = null
        val visit = launch(Dispatchers.Default, CoroutineStart.LAZY) {
            try {
                device.loop.visit()
            } catch (fault: Throwable) {
                ended = fault
            }
        }
        begun(visit)
        visit.join()
        assertIs<CancellationException>(ended)
    }

    /** The next visit begins the same work anew and does all of it. */
    private fun checkBeginsAnew() {
        val next = TinyDevice(service, folder.root)
        assertNull(next.store.report())
        assertNotNull(next.store.work())
        assertEquals(6, assertIs<RoundOutcome.Reported>(next.visit()).steps)
        assertEquals(6, next.steps)
        assertEquals(setOf(0L), service.counted.keys)
        assertEquals(listOf("accepted"), next.store.rounds().map { it.outcome })
    }

    /** The next visit sends [steps] steps without any more, and they count once. */
    private fun checkSends(steps: Int, numExamples: Int) {
        val next = TinyDevice(service, folder.root)
        assertEquals(steps, assertIs<RoundOutcome.Reported>(next.visit()).steps)
        assertEquals(0, next.steps, "it trained again")
        val facts = service.facts.values.single()
        assertEquals(listOf("$steps", "$numExamples"), listOf("steps", "num_examples").map(facts::getValue))
        assertTrue(facts.keys.none { it.startsWith("metric") }, "$facts")
        assertIs<RoundOutcome.TurnedAway>(next.visit())
        assertEquals(setOf(0L), service.counted.keys)
        assertEquals(listOf("accepted"), next.store.rounds().map { it.outcome })
        assertNull(next.store.work())
    }

    @Test
    fun `the steps that were done are in the store, and the next visit sends them`() {
        val report = assertNotNull(cancelledIn(step = 3).store.report())
        // Batches of 4, 4 and 2.
        assertEquals(listOf(3L, 10L), listOf(report.facts.steps, report.facts.numExamples))
        assertNull(report.facts.metricGlobal)
        assertNull(report.facts.metricPersonalised)
        val update = SafeTensors.read(File(folder.root, "report/update.safetensors"), 1 shl 16)
        assertEquals(3, update.getValue("seen").values().getLong(0))
        checkSends(steps = 3, numExamples = 10)
    }

    @Test
    fun `by the other policy nothing of them is kept`() {
        partialWork = "discard"
        cancelledIn(step = 3)
        checkBeginsAnew()
    }

    @Test
    fun `where no step was done there is nothing to keep`() {
        val sensors = FakeSensors()
        val device = TinyDevice(service, folder.root, sensors = sensors)
        cancelled(device) { visit ->
            // At the look before the first measurement: the one before the first step hears of it.
            sensors.beforeRead = { if (device.trainers.isNotEmpty()) visit.cancel() }
        }
        assertEquals(0, device.steps)
        assertEquals(1, device.trainers.single().evaluations)
        checkBeginsAnew()
    }

    @Test
    fun `work that is done but for its metrics is kept by either policy`() {
        partialWork = "discard"
        assertNotNull(cancelledIn(step = 6).store.report())
        checkSends(steps = 6, numExamples = 20)
    }

    @Test
    fun `where the storage is full the work begins anew`() {
        var isFull = false
        val disk = object : Disk by PhoneDisk {
            override fun create(file: File): DiskFile =
                if (isFull) throw IOException("No space left on device") else PhoneDisk.create(file)
        }
        lateinit var visit: Job
        val device = TinyDevice(service, folder.root, disk, beforeStep = {
            if (it == 3) {
                isFull = true
                visit.cancel()
            }
        })
        cancelled(device) { visit = it }
        checkBeginsAnew()
    }

    @Test
    fun `values that are no finite numbers are not kept`() {
        learningRate = 1e30
        assertNull(cancelledIn(step = 3).store.report())
        assertEquals(RoundOutcome.Dropped("not_finite"), TinyDevice(service, folder.root).visit())
        assertTrue(service.counted.isEmpty())
    }
}
