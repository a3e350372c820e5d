package org.pocketfleet.core

import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue
import kotlinx.coroutines.CancellationException
import org.junit.After
import org.junit.Before
import org.junit.Rule as JUnitRule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** What the phone does when its user, its battery or its heat come between. */
class RoundLoopGateTest {
    @get:JUnitRule
    val folder = TemporaryFolder()
    private val service = TinyService { it.put("partial_work", partialWork) }
    private var partialWork = "report"
    private val able = FakeSensors.ABLE

    @Before
    fun enrol() = TinyDevice.enrol(service, folder.root)

    @After
    fun close() = service.close()

    private val unable = mapOf(
        Ineligible.IN_USE to able.copy(idle = false),
        Ineligible.NOT_CHARGING to able.copy(charging = false),
        Ineligible.METERED to able.copy(unmetered = false),
        Ineligible.LOW_BATTERY to able.copy(batteryRatio = 0.29),
        Ineligible.TOO_HOT to able.copy(thermalStatus = 4),
        Ineligible.LOW_MEMORY to able.copy(freeMemoryBytes = 1 shl 20),
    )

    @Test
    fun `a phone that may not train asks nobody`() {
        for ((reason, conditions) in unable) {
            val device = TinyDevice(service, folder.root, sensors = FakeSensors(conditions))
            assertEquals(RoundOutcome.NotEligible(reason), device.visit())
        }
        assertEquals(
            RoundOutcome.NotEligible(Ineligible.NO_EXAMPLES),
            TinyDevice(service, folder.root, numExamples = 0).visit(),
        )
        assertEquals(emptyList(), service.requests)
    }

    @Test
    fun `a phone that must stop stops within a step and reports what it did`() {
        for ((reason, conditions) in unable) {
            fresh()
            val sensors = FakeSensors()
            val device = TinyDevice(
                service,
                folder.root,
                sensors = sensors,
                // In the middle of the third step.
                beforeStep = { if (it == 3) sensors.conditions = conditions },
            )
            val outcome = device.visit()
            assertEquals(3, device.steps, "$reason")
            // What was measured before training; nothing was afterwards.
            assertEquals(1, device.trainers.single().evaluations, "$reason")
            if (reason == Ineligible.METERED) {
                assertEquals(RoundOutcome.NotEligible(reason), outcome)
                assertTrue(service.counted.isEmpty(), "a report went over a metered network")
                sensors.conditions = able
                assertIs<RoundOutcome.Reported>(device.visit())
            } else {
                assertEquals(3, assertIs<RoundOutcome.Reported>(outcome, "$reason").steps)
            }
            // Batches of 4, 4 and 2.
            assertEquals("10", service.facts.values.single().getValue("num_examples"))
            assertNull(service.facts.values.single()["metric_personalised"])
        }
    }

    @Test
    fun `by the other policy nothing of it counts`() {
        partialWork = "discard"
        for ((reason, conditions) in unable) {
            fresh()
            val sensors = FakeSensors()
            val device = TinyDevice(
                service,
                folder.root,
                sensors = sensors,
                beforeStep = { if (it == 3) sensors.conditions = conditions },
            )
            assertEquals(RoundOutcome.Dropped(reason.word), device.visit())
            assertEquals(3, device.steps)
            assertTrue(service.counted.isEmpty())
            assertEquals(listOf(reason.word), device.store.rounds().map { it.outcome })
            assertNull(device.store.work())
        }
    }

    @Test
    fun `warmth that forbids a start does not stop what runs`() {
        val sensors = FakeSensors()
        val warm = able.copy(thermalStatus = 2, skinCelsius = 44.0)
        val device = TinyDevice(service, folder.root, sensors = sensors, beforeStep = { sensors.conditions = warm })
        assertEquals(6, assertIs<RoundOutcome.Reported>(device.visit()).steps)
        assertEquals(RoundOutcome.NotEligible(Ineligible.TOO_HOT), device.visit())
    }

    @Test
    fun `the sensors are read before each step`() {
        val sensors = FakeSensors()
        val seen = mutableListOf<Int>()
        TinyDevice(service, folder.root, sensors = sensors, beforeStep = { seen += sensors.reads }).visit()
        assertEquals(List(5) { 1 }, seen.zipWithNext { one, next -> next - one })
    }

    @Test
    fun `a program that does not fit is not opened`() {
        // Enough to ask, too little for the runtime and the program: 64 MiB and 1 MiB, and a tenth is left alone.
        val sensors = FakeSensors(able.copy(freeMemoryBytes = (72L shl 20)))
        val device = TinyDevice(service, folder.root, sensors = sensors)
        assertEquals(RoundOutcome.Dropped(Ineligible.LOW_MEMORY.word), device.visit())
        assertTrue(device.trainers.isEmpty())
        // From then on it knows by itself.
        service.requests.clear()
        assertEquals(RoundOutcome.NotEligible(Ineligible.LOW_MEMORY), device.visit())
        assertEquals(emptyList(), service.requests)
    }

    @Test
    fun `a deadline that comes while it trains ends it`() {
        val clock = FakeClock()
        val device = TinyDevice(service, folder.root, clock = clock, beforeStep = { clock.nowS += 250.0 })
        assertEquals(RoundOutcome.Dropped("deadline"), device.visit())
        // The assignment's 600 s are over after the third.
        assertEquals(3, device.steps)
    }

    @Test
    fun `who comes to a metered network in the middle of a download waits with the rest`() {
        for (start in listOf("GET files/", "PUT reports/")) {
            fresh()
            val sensors = FakeSensors()
            service.fault = { request, exchange ->
                val isCut = request.startsWith(start) && sensors.conditions.unmetered
                // The connection breaks, as one does when a phone changes networks.
                if (isCut) {
                    sensors.conditions = able.copy(unmetered = false)
                    // Behind the answer's first byte: before it, the JDK would ask once more by itself.
                    service.files[request.substringAfterLast('/')]?.let {
                        exchange.sendResponseHeaders(200, it.size.toLong())
                        exchange.responseBody.write(it, 0, 1)
                        exchange.responseBody.flush()
                    }
                }
                isCut
            }
            val device = TinyDevice(service, folder.root, sensors = sensors)
            assertEquals(RoundOutcome.NotEligible(Ineligible.METERED), device.visit(), start)
            assertEquals(1, service.requests.count { it.startsWith(start) }, "it went on over a metered network")
            service.fault = { _, _ -> false }
            sensors.conditions = able
            val open = service.openAssignment
            assertIs<RoundOutcome.Reported>(device.visit())
            assertEquals(setOf(open), service.counted.keys, "another assignment was asked for")
        }
    }

    @Test
    fun `a program that fails is given up, and not tried again and again`() {
        for ((fault, reason) in failures) {
            fresh()
            val device = TinyDevice(service, folder.root, beforeStep = { throw fault })
            assertEquals(RoundOutcome.Dropped(reason), device.visit())
            assertTrue(device.trainers.single().isClosed)
            assertNull(device.store.work())
            assertEquals(listOf(reason), device.store.rounds().map { it.outcome })
        }
    }

    @Test
    fun `a program that cannot be opened is given up, whatever it was to be opened for`() {
        for ((fault, reason) in failures) {
            for (evaluates in listOf(false, true)) {
                fresh()
                service.evaluates = evaluates
                val device = TinyDevice(service, folder.root, beforeOpen = { throw fault })
                assertEquals(RoundOutcome.Dropped(reason), device.visit())
                assertNull(device.store.work())
            }
        }
    }

    @Test
    fun `cancellation is no failure of the program`() {
        // It is an IllegalStateException too.
        val device = TinyDevice(service, folder.root, beforeStep = { throw CancellationException("the job is over") })
        assertFailsWith<CancellationException> { device.visit() }
        assertNotNull(device.store.work())
        assertEquals(emptyList(), device.store.rounds())
    }

    private class Failed : PocketfleetException("no such operator")

    private val failures = listOf(
        Failed() to "the program failed: no such operator",
        IllegalArgumentException("x is [4, 13], not [batch, 784]") to
            "the program failed: x is [4, 13], not [batch, 784]",
        IllegalStateException("it is closed") to "the program failed: it is closed",
        IllegalStateException() to "the program failed: java.lang.IllegalStateException",
        UnsatisfiedLinkError("no such library") to
            "the program failed: java.lang.UnsatisfiedLinkError: no such library",
        OutOfMemoryError() to "out_of_memory",
    )

    private fun fresh() {
        service.counted.clear()
        service.facts.clear()
        service.requests.clear()
        folder.root.listFiles()!!.forEach { it.deleteRecursively() }
        TinyDevice.enrol(service, folder.root)
    }
}
