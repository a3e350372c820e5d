package org.pocketfleet.demo

import android.app.job.JobParameters
import android.app.job.JobService
import android.os.Build
import android.os.Process
import android.util.Log
import kotlinx.coroutines.runBlocking
import org.pocketfleet.core.BenchmarkResult
import org.pocketfleet.core.Patience
import org.pocketfleet.trainer.ExecutorchTrainer
import java.io.File
import kotlin.concurrent.thread

/**
 * Measures one bundle, in a process of its own that ends afterwards, and leaves the result in the app's external files.
 *
 * Whoever holds the phone started it over the cable; it trains on drawn numbers, not on the user's examples.
 */
class BenchmarkJob : JobService() {
    @Volatile
    private var goOn = true

    override fun onStartJob(parameters: JobParameters): Boolean {
        val root = checkNotNull(getExternalFilesDir(null)) { "the phone has no external files at the moment" }
        val name = checkNotNull(parameters.extras.getString(BUNDLE)) { "the job names no bundle" }
        thread(name = "benchmark") {
            try {
                val run = measure(root, name)
                if (parameters.extras.getString(POST) != null) post(run)
            } catch (exception: Exception) {
                Log.e(TAG, "no result", exception)
                File(root, ERROR).writeText("${exception.message}\n")
            }
            jobFinished(parameters, false)
            // Two measurements never share a process.
            Process.killProcess(Process.myPid())
        }
        return true
    }

    override fun onStopJob(parameters: JobParameters): Boolean {
        goOn = false
        return false
    }

    /** Tell the service that this phone is a member of; where it is none's, nobody. */
    private fun post(run: ProcessRun) = runBlocking {
        val app = application as DemoApplication
        val first = run.steps.first()
        val result = BenchmarkResult(
            program = BundleFacts.RUNTIME,
            batchSize = first.batch,
            medianS = first.latency.medianS,
            repeats = first.latency.steps,
            runtimeVersion = DemoApplication.EXECUTORCH,
            method = "train_step",
            peakMemoryBytes = run.peakRssBytes,
        )
        app.member()?.benchmark(result, Patience(tries = 3))
        Unit
    }

    private fun measure(root: File, name: String): ProcessRun {
        File(root, RESULT).delete()
        File(root, ERROR).delete()
        val sensors = PhoneSensors(this)
        val rules = BenchmarkRules()
        val facts = BundleFacts(BenchmarkFolder.bundle(root, name))
        val before = sensors.moment()
        val benchmark = StepBenchmark(rules, THREADS, System::nanoTime) { ExecutorchTrainer.open(it, THREADS) }
        val run = benchmark.run(facts) { goOn }
            ?: throw BenchmarkException("Android stopped the measurement: keep the app open while it runs")
        val host = BenchmarkHost(
            model = Build.MODEL,
            manufacturer = Build.MANUFACTURER,
            machine = Build.SUPPORTED_ABIS.first(),
            system = "Android ${Build.VERSION.RELEASE}",
            cores = Runtime.getRuntime().availableProcessors(),
            memoryBytes = sensors.memoryBytes(),
            versions = mapOf("app" to DemoApplication.VERSION, BundleFacts.RUNTIME to DemoApplication.EXECUTORCH),
            before = before,
            after = sensors.moment(),
        )
        val written = File(root, "$RESULT.new")
        written.writeText(BenchmarkReport.json(host, facts, run, rules).toString(2) + "\n")
        check(written.renameTo(File(root, RESULT))) { "cannot write $RESULT in $root" }
        Log.i(TAG, "wrote ${File(root, RESULT)}")
        return run
    }

    companion object {
        /** The name of the bundle's folder, among the job's extras. */
        const val BUNDLE = "bundle"

        /** Any text among the extras: the result is told to the service too. */
        const val POST = "post"

        /** What `adb pull` brings home. */
        const val RESULT = "benchmark.json"

        /** Why there is none. */
        const val ERROR = "benchmark.error.txt"

        private const val TAG = "pocketfleet"
        private const val THREADS = 1
    }
}
