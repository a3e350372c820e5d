package org.pocketfleet.demo

import android.app.job.JobParameters
import android.app.job.JobService
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch

/** A visit to the service, with all the training that comes of it: the only place where this app trains. */
class TrainingJob : JobService() {
    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.Default)
    private var work: Job? = null

    override fun onStartJob(parameters: JobParameters): Boolean {
        val app = application as DemoApplication
        if (!app.mayTrain) return false
        app.notice.show(this, parameters)
        work = scope.launch {
            val afterS = app.visit()
            // In this order: a job that is over has a number to give away.
            jobFinished(parameters, false)
            app.notice.hide()
            if (afterS != null && app.mayTrain) app.calendar.comeAgain(afterS, parameters.jobId)
        }
        return true
    }

    /** A condition is gone, or the user said stop: the step under way is the last. True: come again when it is back. */
    override fun onStopJob(parameters: JobParameters): Boolean {
        val app = application as DemoApplication
        work?.cancel()
        app.notice.hide()
        return app.mayTrain
    }

    override fun onDestroy() {
        scope.cancel()
        super.onDestroy()
    }
}
