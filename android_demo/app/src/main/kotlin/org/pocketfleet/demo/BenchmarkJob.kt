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
import java.util.concurrent.atomic.AtomicInteger
import kotlin.concurrent.thread

/**
 * Measures one bundle, in a process of its own that ends afterwards, and leaves the result in the app's external files.
 *
 * Any app may start the screen, and so this, not only whoever holds the phone's cable: it trains on drawn numbers,
 * never on the user's examples, and tells the service only where the user has turned training on.
 */
class BenchmarkJob : JobService() {
    @Volatile
    private var goOn = true

    @Volatile
    private var destroyed = false
    private val measuring = AtomicInteger()

    override fun onStartJob(parameters: JobParameters): Boolean {
        val root = getExternalFilesDir(null)
        val name = parameters.extras.getString(BUNDLE)
        if (root == null || name == null) {
            Log.e(TAG, "no result: the phone has no external files at the moment, or the job names no bundle")
            return false
        }
        measuring.incrementAndGet()
        thread(name = "benchmark") {
            val post = if (parameters.extras.getString(POST) == null) null else ::post
            BenchmarkErrand(root, ::note).run({ measure(root, name) }, post)
            // The main thread tells the system later: a process that is gone by then is a crash, and the job run again.
            jobFinished(parameters, false)
            measuring.decrementAndGet()
            endIfOver()
        }
        return true
    }

    override fun onStopJob(parameters: JobParameters): Boolean {
        goOn = false
        return false
    }

    override fun onDestroy() {
        super.onDestroy()
        destroyed = true
        endIfOver()
    }

    /** Two measurements never share a process: the memory that the first took would count as the second's. */
    private fun endIfOver() {
        // A job that was stopped may still write why, after it was destroyed.
        if (destroyed && measuring.get() == 0) Process.killProcess(Process.myPid())
    }

    private fun note(text: String, failure: Throwable?) {
        if (failure == null) Log.i(TAG, text) else Log.e(TAG, text, failure)
    }

    /** Tell the service that this phone is a member of. */
    private fun post(run: ProcessRun) = runBlocking {
        val app = application as DemoApplication
        if (!app.mayTrain) throw BenchmarkException("training is not turned on: only then the service is told")
        val first = run.steps.first()
        val result = BenchmarkResult(
            program = BundleFacts.RUNTIME,
            batchSize = first.batch,
            medianS = first.latency.medianS,
            repeats = first.latency.steps,
            runtimeVersion = app.executorch,
            method = "train_step",
            peakMemoryBytes = run.peakRssBytes,
        )
        app.member()?.benchmark(result, Patience(tries = 3))
        Unit
    }

    private fun measure(root: File, name: String): Measured {
        val sensors = PhoneSensors(this)
        val rules = BenchmarkRules()
        val facts = BundleFacts(BenchmarkFolder.bundle(root, name))
        val before = sensors.moment()
        val benchmark = StepBenchmark(rules, THREADS, System::nanoTime) { ExecutorchTrainer.open(it, THREADS) }
        val run = benchmark.run(facts) { goOn }
            ?: throw BenchmarkException("Android stopped the measurement: keep the app open while it runs")
        val executorch = (application as DemoApplication).executorch
        val host = BenchmarkHost(
            model = Build.MODEL,
            manufacturer = Build.MANUFACTURER,
            machine = Build.SUPPORTED_ABIS.first(),
            system = "Android ${Build.VERSION.RELEASE}",
            cores = Runtime.getRuntime().availableProcessors(),
            memoryBytes = sensors.memoryBytes(),
            versions = mapOf("app" to DemoApplication.VERSION, BundleFacts.RUNTIME to executorch),
            before = before,
            after = sensors.moment(),
        )
        return Measured(run, BenchmarkReport.json(host, facts, run, rules))
    }

    companion object {
        /** The name of the bundle's folder, among the job's extras. */
        const val BUNDLE = "bundle"

        /** Any text among the extras: the result is told to the service too. */
        const val POST = "post"

        private const val TAG = "pocketfleet"
        private const val THREADS = 1
    }
}
