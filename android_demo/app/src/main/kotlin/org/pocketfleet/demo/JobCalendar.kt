package org.pocketfleet.demo

import android.app.job.JobInfo
import android.app.job.JobScheduler
import android.content.ComponentName
import android.content.Context
import android.os.PersistableBundle

/**
 * Android's own scheduler: it starts a visit when the phone is charging, on a network that costs nothing, idle, and its
 * battery not low.
 *
 * Nothing survives a restart of the phone, which would need one more permission: the app plans anew when it is opened.
 */
class JobCalendar(private val context: Context) : Calendar {
    private val scheduler =
        checkNotNull(context.getSystemService(JobScheduler::class.java)) { "Android has no scheduler" }

    override fun come(afterS: Double) {
        // One visit is planned at a time.
        scheduler.cancel(SECOND)
        plan(FIRST, afterS)
    }

    /**
     * Plan the visit after the job [running], which goes on: under the other number, since to plan a number anew stops
     * its job.
     */
    fun comeAgain(afterS: Double, running: Int) = plan(if (running == FIRST) SECOND else FIRST, afterS)

    override fun ensure() {
        if (scheduler.getPendingJob(FIRST) == null && scheduler.getPendingJob(SECOND) == null) come(0.0)
    }

    override fun cancel() {
        scheduler.cancel(FIRST)
        scheduler.cancel(SECOND)
    }

    /** Measure the bundle called [name] now, whatever the phone's conditions; [post] tells the service too. */
    fun measure(name: String, post: Boolean) {
        val extras = PersistableBundle().apply {
            putString(BenchmarkJob.BUNDLE, name)
            if (post) putString(BenchmarkJob.POST, "yes")
        }
        scheduler.schedule(
            JobInfo.Builder(BENCHMARK, ComponentName(context, BenchmarkJob::class.java))
                .setExtras(extras)
                .setOverrideDeadline(0)
                .build(),
        )
    }

    private fun plan(id: Int, afterS: Double) {
        scheduler.schedule(
            JobInfo.Builder(id, ComponentName(context, TrainingJob::class.java))
                .setRequiresCharging(true)
                .setRequiredNetworkType(JobInfo.NETWORK_TYPE_UNMETERED)
                .setRequiresDeviceIdle(true)
                .setRequiresBatteryNotLow(true)
                .setMinimumLatency((afterS * MILLIS).toLong())
                .build(),
        )
    }

    private companion object {
        const val FIRST = 1
        const val SECOND = 2
        const val BENCHMARK = 3
        const val MILLIS = 1000
    }
}
