package org.pocketfleet.core

import java.io.File
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.Rule as JUnitRule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** The process dies at every change that a round makes on the disk, or the disk is full from there on. */
class RoundLoopCrashTest {
    @get:JUnitRule
    val folder = TemporaryFolder()

    private val expected: ByteArray by lazy {
        attempt("expected") { service, place ->
            TinyDevice(service, place).visit()
            service.counted.getValue(0)
        }
    }

    /** How many changes there are in a round without faults. */
    private val changes: Int by lazy {
        attempt("changes") { service, place ->
            FaultyDisk().also { TinyDevice(service, place, it).visit() }.changes
        }
    }

    // One of two weights is sent, and what the other one had to say is kept.
    private val terms = TinyService.coded("top_k", mapOf("ratio" to 0.5, "error_feedback" to true))

    private val residual: ByteArray by lazy {
        attempt("residual") { service, place ->
            TinyDevice(service, place).visit()
            val kept = DeviceStore(place).residual()
            assertEquals(setOf("w"), kept.keys)
            LinearModel.bytes(kept)
        }
    }

    private fun <T> attempt(name: String, call: (TinyService, File) -> T): T = TinyService(terms = terms).use { service ->
        val place = folder.newFolder(name)
        TinyDevice.enrol(service, place)
        call(service, place)
    }

    /** Visits until there is nothing to do any more: the report counts. */
    private fun settled(service: TinyService, place: File): List<RoundOutcome> {
        val outcomes = mutableListOf<RoundOutcome>()
        while (outcomes.size < 4) {
            outcomes += TinyDevice(service, place).visit()
            if (outcomes.last() is RoundOutcome.TurnedAway) return outcomes
        }
        throw AssertionError("no end of it: $outcomes")
    }

    private fun checkWhole(service: TinyService, place: File, told: String) {
        val store = DeviceStore(place)
        assertEquals(1, service.counted.size, told)
        assertContentEquals(expected, service.counted.values.single(), told)
        assertNull(store.report(), told)
        assertNull(store.work(), told)
        val own = SafeTensors.read(assertNotNull(store.ownModel(), told), 1 shl 16)
        assertEquals(6, own.getValue("seen").values().getLong(0), told)
        assertContentEquals(residual, LinearModel.bytes(store.residual()), told)
        assertEquals(1, store.rounds().count { it.outcome == "accepted" }, "$told: ${store.rounds()}")
        assertEquals(emptyList(), place.walk().filter { ".partial" in it.name || ".gone" in it.name }.toList(), told)
    }

    @Test
    fun `killed at any change, a round counts once, with the same bytes`() {
        var killed = 0
        for (at in 1..changes) attempt("killed-$at") { service, place ->
            assertFailsWith<Killed>("change $at") { TinyDevice(service, place, FaultyDisk(killedAt = at)).visit() }
            killed += 1
            settled(service, place)
            checkWhole(service, place, "killed at change $at of $changes")
        }
        // The credential's file apart, a round writes at least a work, a bundle, a report and what follows from it.
        assertTrue(killed > 50, "only $killed changes were tried")
    }

    @Test
    fun `killed at any step, it begins anew while the service waits`() {
        for (step in 1..6) attempt("step-$step") { service, place ->
            assertFailsWith<Killed> {
                TinyDevice(service, place, beforeStep = { if (it == step) throw Killed() }).visit()
            }
            assertIs<RoundOutcome.Reported>(TinyDevice(service, place).visit())
            assertEquals(setOf(0L), service.counted.keys, "another assignment was asked for")
            assertContentEquals(expected, service.counted.values.single())
        }
    }

    @Test
    fun `killed, and the service waits no more, it asks for new work`() = attempt("closed") { service, place ->
        assertFailsWith<Killed> { TinyDevice(service, place, beforeStep = { throw Killed() }).visit() }
        service.openAssignment = -1
        assertIs<RoundOutcome.Reported>(TinyDevice(service, place).visit())
        assertEquals(setOf(1L), service.counted.keys)
        assertEquals(listOf("closed", "accepted"), DeviceStore(place).rounds().map { it.outcome })
    }

    @Test
    fun `work whose deadline is over is given up unasked`() = attempt("over") { service, place ->
        assertFailsWith<Killed> { TinyDevice(service, place, beforeStep = { throw Killed() }).visit() }
        service.requests.clear()
        val late = TinyDevice(service, place, clock = FakeClock(nowS = 2000.0))
        assertIs<RoundOutcome.Reported>(late.visit())
        assertEquals("POST check-in", service.requests.first())
        assertEquals(listOf("deadline", "accepted"), late.store.rounds().map { it.outcome })
    }

    @Test
    fun `an answer that is lost is asked for again with the same bytes`() = attempt("lost") { service, place ->
        var isLost = true
        service.fault = { request, exchange ->
            // Counted, and then the connection breaks.
            if (isLost && request.startsWith("PUT reports/")) {
                isLost = false
                val body = exchange.requestBody.readBytes()
                service.counted[0] = body
                service.facts[0] = emptyMap()
                true
            } else {
                false
            }
        }
        assertIs<RoundOutcome.Reported>(TinyDevice(service, place).visit())
        assertEquals(2, service.requests.count { it.startsWith("PUT reports/") })
        checkWhole(service, place, "the first answer was lost")
    }

    @Test
    fun `a full disk is told, loses nothing, and is gone on from`() {
        var full = 0
        for (from in 1..changes) attempt("full-$from") { service, place ->
            val before = LinearModel.bytes(LinearModel.weights(9f, 9f))
            File(place, "model.safetensors").writeBytes(before)
            val outcome = TinyDevice(service, place, FaultyDisk(fullFrom = from)).visit()
            if (outcome is RoundOutcome.Dropped) {
                assertEquals("storage_full", outcome.reason, "full from change $from")
                full += 1
            } else {
                assertIs<RoundOutcome.Reported>(outcome, "full from change $from")
            }
            val store = DeviceStore(place)
            assertNotNull(store.credential())
            // Until the report counts, the model is the one before.
            if (service.counted.isEmpty()) {
                assertContentEquals(before, assertNotNull(store.ownModel()).readBytes())
                assertEquals(emptyMap(), store.residual())
            }
            settled(service, place)
            checkWhole(service, place, "full from change $from of $changes")
        }
        assertTrue(full > 30, "only $full changes found the disk full")
    }

    @Test
    fun `a phone without room for a report does not train`() = attempt<Unit>("room") { service, place ->
        // The update: its header and what it holds of one weight of two; a model, and a residual of the same size.
        val needed = expected.size + 2L * service.weights.size
        val device = TinyDevice(service, place, FaultyDisk(freeBytes = needed - 1))
        assertEquals(RoundOutcome.Dropped("storage_full"), device.visit())
        assertEquals(0, device.steps)
        assertIs<RoundOutcome.Reported>(TinyDevice(service, place, FaultyDisk(freeBytes = needed)).visit())
    }

    @Test
    fun `a report that the storage damaged is never sent`() = attempt("damaged") { service, place ->
        service.fault = { request, exchange -> request.startsWith("PUT reports/").also { if (it) exchange.close() } }
        val clock = FakeClock()
        assertIs<RoundOutcome.NotReached>(TinyDevice(service, place, clock = clock).visit())
        service.fault = { _, _ -> false }
        val update = File(place, "report/update.safetensors")
        update.writeBytes(update.readBytes().also { it[it.size - 1] = (it.last() + 1).toByte() })
        assertEquals(RoundOutcome.Dropped("damaged_report"), TinyDevice(service, place).visit())
        assertTrue(service.counted.isEmpty())
    }
}
