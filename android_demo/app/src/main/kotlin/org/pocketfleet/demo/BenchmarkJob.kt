package org.pocketfleet.demo

import android.app.job.JobParameters
import android.app.job.JobService
import android.os.Build
import android.os.Process
import android.util.Log
import kotlin.concurrent.thread
import org.pocketfleet.trainer.ExecutorchTrainer
import java.io.File

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
                measure(root, name)
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

    private fun measure(root: File, name: String) {
        File(root, RESULT).delete()
        File(root, ERROR).delete()
        val sensors = PhoneSensors(this)
        val rules = BenchmarkRules()
        val facts = BundleFacts(BenchmarkFolder.bundle(root, name))
        val before = sensors.moment()
        val run = StepBenchmark(rules, THREADS, System::nanoTime) { ExecutorchTrainer.open(it, THREADS) }.run(facts) { goOn }
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
    }

    companion object {
        /** The name of the bundle's folder, among the job's extras. */
        const val BUNDLE = "bundle"

        /** What `adb pull` brings home. */
        const val RESULT = "benchmark.json"

        /** Why there is none. */
        const val ERROR = "benchmark.error.txt"

        private const val TAG = "pocketfleet"
        private const val THREADS = 1
    }
}
