package org.pocketfleet.demo

import android.app.job.JobParameters
import android.app.job.JobService
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch
import java.util.concurrent.ConcurrentHashMap

/** A visit to the service, with all the training that comes of it: the only place where this app trains. */
class TrainingJob : JobService() {
    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.Default)

    // By the job's number: the calendar has two of them, and one service may be given both.
    private val works = ConcurrentHashMap<Int, Job>()

    override fun onStartJob(parameters: JobParameters): Boolean {
        val app = application as DemoApplication
        if (!app.mayTrain) return false
        app.notice.show(this, parameters)
        val work = scope.launch(start = CoroutineStart.LAZY) {
            val afterS = app.visit()
            // While this job still runs: once it is over, the system may end the process at any moment.
            if (afterS != null && app.mayTrain) app.calendar.comeAgain(afterS, parameters.jobId)
            works.remove(parameters.jobId, coroutineContext[Job])
            hideIfOver(app)
            jobFinished(parameters, false)
        }
        works[parameters.jobId] = work
        work.start()
        return true
    }

    /** A condition is gone, or the user said stop: the step under way is the last. True: come again when it is back. */
    override fun onStopJob(parameters: JobParameters): Boolean {
        val app = application as DemoApplication
        works.remove(parameters.jobId)?.cancel()
        hideIfOver(app)
        return app.mayTrain
    }

    override fun onDestroy() {
        scope.cancel()
        super.onDestroy()
    }

    private fun hideIfOver(app: DemoApplication) {
        if (works.isEmpty()) app.notice.hide()
    }
}
