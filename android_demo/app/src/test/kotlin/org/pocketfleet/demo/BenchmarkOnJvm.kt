package org.pocketfleet.demo

import org.pocketfleet.trainer.ExecutorchTrainer
import java.io.File
import kotlin.system.exitProcess

/** Measures the bundle in the first argument's folder here, and writes what a phone would to the second's file. */
fun main(arguments: Array<String>) {
    val folder = File(arguments[0])
    val rules = BenchmarkRules(warmUpSteps = 2, leastSteps = 5, leastS = 0.0)
    val facts = BundleFacts(BenchmarkFolder.bundle(folder.absoluteFile.parentFile, folder.name))
    val benchmark = StepBenchmark(rules, 1, System::nanoTime) { ExecutorchTrainer.open(it, 1) }
    val run = checkNotNull(benchmark.run(facts) { true })
    val before = PhoneMoment(
        batteryRatio = 0.5,
        charging = false,
        batteryAmperes = -0.25,
        batteryVolts = 4.0,
        batteryCelsius = 30.0,
        thermalStatus = 0,
        freeMemoryBytes = 1_000_000_000,
    )
    // As a phone that tells little.
    val after = PhoneMoment(null, true, null, null, null, null, 0)
    val host = BenchmarkHost(
        model = "Pixel 8",
        manufacturer = "Google",
        machine = "arm64-v8a",
        system = "Android 14",
        cores = 9,
        memoryBytes = 8_000_000_000,
        versions = mapOf("app" to "test"),
        before = before,
        after = after,
    )
    File(arguments[1]).writeText(BenchmarkReport.json(host, facts, run, rules).toString(2))
    // A thread of fbjni's never ends.
    exitProcess(0)
}
