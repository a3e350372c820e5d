package org.pocketfleet.core

import com.sun.net.httpserver.HttpExchange
import java.io.File
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.After
import org.junit.Before
import org.junit.Rule as JUnitRule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** What the network and the service can do to a round. */
class RoundLoopFaultsTest {
    @get:JUnitRule
    val folder = TemporaryFolder()
    private val service = TinyService()
    private val program = LinearModel.entry(service.model.files.getValue(Manifest.PTE_FILE))

    @Before
    fun enrol() = TinyDevice.enrol(service, folder.root)

    @After
    fun close() = service.close()

    /** The first [times] requests that start so are handled by [call]. */
    private fun fault(start: String, times: Int, call: (HttpExchange) -> Unit) {
        var left = times
        service.fault = { request, exchange ->
            val isMeant = request.startsWith(start) && left > 0
            if (isMeant) {
                left -= 1
                call(exchange)
            }
            isMeant
        }
    }

    private fun device(clock: FakeClock = FakeClock()) = TinyDevice(service, folder.root, clock = clock)

    private fun checkCountedOnce() {
        assertEquals(setOf(0L), service.counted.keys)
        assertEquals(listOf("accepted"), device().store.rounds().map { it.outcome })
    }

    @Test
    fun `a service that is gone is told as such, and nothing is lost`() {
        service.close()
        assertIs<RoundOutcome.NotReached>(device().visit())
        assertNotNull(device().store.credential())
    }

    @Test
    fun `a service that is gone when the report is ready has it at the next visit`() {
        fault("PUT reports/", Int.MAX_VALUE) { it.close() }
        val first = device()
        assertIs<RoundOutcome.NotReached>(first.visit())
        val facts = assertNotNull(first.store.report()).facts
        service.fault = { _, _ -> false }
        val second = device()
        assertIs<RoundOutcome.Reported>(second.visit())
        assertEquals(0, second.steps, "it trained again")
        assertEquals(facts.trainLoss.toString(), service.facts.getValue(0).getValue("train_loss"))
        checkCountedOnce()
    }

    @Test
    fun `429 and 503 are waited for as long as they say`() {
        val busy = listOf(429 to "POST check-in", 503 to "GET files/", 503 to "PUT reports/", 429 to "GET files/")
        for ((status, start) in busy) {
            service.counted.clear()
            folder.root.listFiles()!!.forEach { it.deleteRecursively() }
            TinyDevice.enrol(service, folder.root)
            fault(start, 2) { it.refuse(status, "busy", retryAfterS = 17) }
            val clock = FakeClock()
            assertIs<RoundOutcome.Reported>(device(clock).visit(), "$status on $start")
            assertEquals(listOf(17.0, 17.0), clock.slept, "$status on $start")
        }
    }

    @Test
    fun `a download that is cut goes on where it was cut`() {
        val asked = mutableListOf<String?>()
        service.fault = { request, exchange ->
            val isProgram = request == "GET files/${program.sha256}"
            if (isProgram) asked += exchange.requestHeaders.getFirst("Range")
            // The first connection ends after five bytes.
            if (isProgram && asked.size == 1) {
                exchange.sendResponseHeaders(200, program.bytes)
                exchange.responseBody.write(service.files.getValue(program.sha256), 0, 5)
                exchange.responseBody.flush()
            }
            isProgram && asked.size == 1
        }
        assertIs<RoundOutcome.Reported>(device().visit())
        assertEquals(listOf(null, "bytes=5-"), asked)
    }

    @Test
    fun `a download goes on after a restart`() {
        fault("GET files/${program.sha256}", Int.MAX_VALUE) { exchange ->
            exchange.sendResponseHeaders(200, program.bytes)
            exchange.responseBody.write(service.files.getValue(program.sha256), 0, 5)
            throw java.io.IOException("cut")
        }
        // Each connection brings the same five bytes and no more.
        assertEquals(RoundOutcome.Dropped("deadline"), device().visit())
        assertEquals(5, File(folder.root, "files/.${program.sha256}.partial").length())
        var range: String? = null
        service.fault = { request, exchange ->
            if (request == "GET files/${program.sha256}") range = exchange.requestHeaders.getFirst("Range")
            false
        }
        assertIs<RoundOutcome.Reported>(device().visit())
        assertEquals("bytes=5-", range)
    }

    @Test
    fun `a file of another hash is never opened`() {
        service.files[program.sha256] = "other bytes!!".toByteArray().copyOf(program.bytes.toInt())
        val device = device()
        assertEquals(RoundOutcome.Dropped("damaged_download"), device.visit())
        assertTrue(device.trainers.isEmpty(), "an unverified program was opened")
        assertEquals(3, service.requests.count { it == "GET files/${program.sha256}" })
        assertTrue(File(folder.root, "files").listFiles()!!.none { program.sha256 in it.name })
    }

    @Test
    fun `a file that is longer or shorter than said is never opened`() {
        for (bytes in listOf("other methods and more", "three")) {
            service.files[program.sha256] = bytes.toByteArray()
            val device = device()
            assertEquals(RoundOutcome.Dropped("damaged_download"), device.visit(), bytes)
            assertTrue(device.trainers.isEmpty(), "an unverified program was opened")
        }
        service.files[program.sha256] = service.model.files.getValue(Manifest.PTE_FILE)
        assertIs<RoundOutcome.Reported>(device().visit())
    }

    @Test
    fun `a program that the manifest does not name is never opened`() {
        // Right by the service's hash, and not the one of the manifest.
        val other = LinearModel(program = "other methods").files.getValue(Manifest.PTE_FILE)
        service.files[FileHash.of(other)] = other
        TinyService(service.model) { work ->
            work.getJSONObject("bundle").put(Manifest.PTE_FILE, LinearModel.entry(other).toJson())
        }.use { mixed ->
            mixed.files += service.files
            val device = TinyDevice(mixed, folder.root)
            assertEquals(RoundOutcome.Dropped("damaged_bundle"), device.visit())
            assertTrue(device.trainers.isEmpty(), "an unverified program was opened")
        }
        assertEquals(emptyList(), File(folder.root, "bundles").listFiles()!!.toList())
    }

    @Test
    fun `a program that was altered on the disk is not trained by, and comes anew`() {
        assertIs<RoundOutcome.Reported>(device().visit())
        val file = File(folder.root, "bundles").walk().single { it.name == Manifest.PTE_FILE }
        file.writeBytes("three altered".toByteArray())
        service.counted.clear()
        val device = device()
        assertEquals(RoundOutcome.Dropped("damaged_bundle"), device.visit())
        assertTrue(device.trainers.isEmpty(), "an altered program was opened")
        assertIs<RoundOutcome.Reported>(device().visit())
    }

    @Test
    fun `weights of another model are refused`() {
        val other = LinearModel.bytes(mapOf("w" to HostTensor.of(floatArrayOf(1f, 2f, 3f), 3)))
        TinyService(service.model) { it.put("weights", LinearModel.entry(other).toJson()) }.use { mixed ->
            mixed.files[FileHash.of(other)] = other
            val device = TinyDevice(mixed, folder.root)
            val outcome = assertIs<RoundOutcome.Dropped>(device.visit())
            assertTrue("not this bundle's" in outcome.reason, outcome.reason)
            assertEquals(0, device.steps)
        }
    }

    @Test
    fun `a version that is there no more is given up`() {
        service.files.remove(FileHash.of(service.weights))
        assertEquals(RoundOutcome.Dropped("no_file"), device().visit())
    }

    @Test
    fun `a token that was revoked ends it, at any time`() {
        for (start in listOf("POST check-in", "GET files/", "PUT reports/")) {
            TinyDevice.enrol(service, folder.root)
            service.isRevoked = false
            service.fault = { request, _ ->
                if (request.startsWith(start)) service.isRevoked = true
                false
            }
            assertEquals(RoundOutcome.Revoked, device().visit(), start)
            assertNull(device().store.credential())
            assertEquals(RoundOutcome.Revoked, device().visit(), "without a credential")
        }
        assertTrue(service.counted.isEmpty())
    }

    @Test
    fun `a proxy's 401 is not the service's`() {
        fault("PUT reports/", Int.MAX_VALUE) {
            it.requestBody.readBytes()
            it.sendResponseHeaders(401, -1)
        }
        assertFailsWith<Refused> { device().visit() }
        assertNotNull(device().store.credential())
        assertNotNull(device().store.report())
    }

    @Test
    fun `a report that does not count is forgotten`() {
        for ((status, code) in listOf(409 to "late", 404 to "unknown", 403 to "not_yours", 422 to "too_far")) {
            fault("PUT reports/", 1) {
                it.requestBody.readBytes()
                it.refuse(status, code)
            }
            val device = device()
            assertEquals(RoundOutcome.Dropped(code), device.visit())
            assertNull(device.store.report())
            assertNull(device.store.work())
            assertEquals(code, device.store.rounds().last().outcome)
            assertNull(device.store.ownModel())
        }
    }

    @Test
    fun `500 and a broken connection are tried again`() {
        fault("POST check-in", 1) { it.refuse(500, "broken") }
        val clock = FakeClock()
        assertIs<RoundOutcome.Reported>(device(clock).visit())
        // The first back-off is a quarter of a second, of which up to a half is left out.
        assertTrue(clock.slept.single() in 0.125..0.25, "${clock.slept}")
        checkCountedOnce()
    }
}
