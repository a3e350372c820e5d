package org.pocketfleet.host

import java.io.File
import kotlin.math.max
import kotlin.system.exitProcess
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.delay
import kotlinx.coroutines.runBlocking
import org.pocketfleet.core.AppAbilities
import org.pocketfleet.core.Clock
import org.pocketfleet.core.Credential
import org.pocketfleet.core.DeviceStore
import org.pocketfleet.core.Enrolment
import org.pocketfleet.core.Patience
import org.pocketfleet.core.PhoneConditions
import org.pocketfleet.core.PhoneIdentity
import org.pocketfleet.core.Retries
import org.pocketfleet.core.RoundLoop
import org.pocketfleet.core.RoundOutcome
import org.pocketfleet.core.RoundParts
import org.pocketfleet.core.Sensors
import org.pocketfleet.core.ServiceClient
import org.pocketfleet.core.UrlConnectionTransport
import org.pocketfleet.trainer.ExecutorchTrainer

private const val APP_VERSION = "pocketfleet-host"

// Of the runtime that the bundle's program is for; the service asks for no newer one.
private const val EXECUTORCH_VERSION = "1.5"

// A service that names no time is asked again after so long: no device spins.
private const val LEAST_WAIT_S = 0.05

// Who waits at a terminal is told within seconds.
private const val ENROL_TRIES = 3

/** The machine's own clocks. */
private object HostClock : Clock {
    override fun elapsedS(): Double = System.nanoTime() / 1e9

    override fun wallS(): Double = System.currentTimeMillis() / 1e3

    override suspend fun sleep(seconds: Double) = delay((seconds * 1e3).toLong())
}

/** A machine on mains and a cable. */
private val HostSensors = Sensors {
    PhoneConditions(
        idle = true,
        charging = true,
        unmetered = true,
        batteryRatio = 1.0,
        freeMemoryBytes = Runtime.getRuntime().maxMemory(),
        thermalStatus = 0,
    )
}

/**
 * The app's round loop as a program of a desktop's JVM: what a phone does, without a phone.
 *
 * Arguments: the population's URL, a token, a CSV file of examples, a folder to keep its state in, and after how many
 * reports that count to end. It prints a line for each visit that had an end worth telling.
 */
fun main(arguments: Array<String>) {
    if (arguments.size != 5) {
        System.err.println("usage: URL TOKEN EXAMPLES.csv STATE REPORTS")
        exitProcess(2)
    }
    val (url, token, examples, state, reports) = arguments
    val store = DeviceStore(File(state))
    val retries = Retries(HostClock, seed = url.hashCode().toLong(), tell = ::println)
    val service = ServiceClient(url, UrlConnectionTransport(Dispatchers.IO), retries)
    runBlocking {
        service.credential = (store.credential() ?: enrolled(service, token).also(store::keep)).secret
        val loop = RoundLoop(
            RoundParts(
                service = service,
                store = store,
                examples = CsvExamples.read(File(examples)),
                sensors = HostSensors,
                clock = HostClock,
                // One thread, as the emulated devices beside it.
                trainers = { bundle -> ExecutorchTrainer.open(bundle, threads = 1) },
                abilities = AppAbilities(mapOf("executorch" to EXECUTORCH_VERSION), APP_VERSION),
                compute = Dispatchers.Default,
            ),
        )
        takePart(loop, reports.toInt())
    }
    // A thread of fbjni's would keep the process.
    exitProcess(0)
}

private suspend fun enrolled(service: ServiceClient, token: String): Credential {
    val phone = PhoneIdentity("desktop", "", System.getProperty("os.version").orEmpty(), 0, APP_VERSION)
    val answer = service.enrol(Enrolment(token, phone), Patience(tries = ENROL_TRIES))
    return Credential(service.url, answer.deviceId, answer.credential)
}

/** Visit until so many reports count, or there is nothing to do any more. */
private suspend fun takePart(loop: RoundLoop, reports: Int) {
    var counted = 0
    while (counted < reports) {
        when (val outcome = loop.visit()) {
            is RoundOutcome.Reported -> {
                counted += 1
                println(outcome)
            }
            is RoundOutcome.TurnedAway -> {
                val wait = outcome.retryAfterS
                if (wait == null || outcome.reason == "finished") return println(outcome)
                HostClock.sleep(max(wait, LEAST_WAIT_S))
            }
            is RoundOutcome.NotEligible, RoundOutcome.Revoked -> return println(outcome)
            else -> {
                println(outcome)
                HostClock.sleep(1.0)
            }
        }
    }
}
