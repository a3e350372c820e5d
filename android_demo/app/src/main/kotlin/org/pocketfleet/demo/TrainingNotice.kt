package org.pocketfleet.demo

import android.app.Notification
import android.app.NotificationChannel
import android.app.NotificationManager
import android.app.PendingIntent
import android.app.job.JobParameters
import android.app.job.JobService
import android.content.Context
import android.content.Intent
import android.os.Build

/** Tells that the phone works, for as long as it does. Android shows it if the user allows notifications. */
class TrainingNotice(private val context: Context) {
    private val manager =
        checkNotNull(context.getSystemService(NotificationManager::class.java)) { "Android has no notices" }

    /** Show it for a job; from Android 14 on the system takes it away with the job. */
    fun show(service: JobService, parameters: JobParameters) {
        val name = context.getString(R.string.notice_channel)
        manager.createNotificationChannel(NotificationChannel(CHANNEL, name, NotificationManager.IMPORTANCE_LOW))
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.UPSIDE_DOWN_CAKE) {
            service.setNotification(parameters, ID, notification(), JobService.JOB_END_NOTIFICATION_POLICY_REMOVE)
        } else {
            manager.notify(ID, notification())
        }
    }

    /** Take it away, where the system does not. */
    fun hide() = manager.cancel(ID)

    private fun notification(): Notification {
        val screen = Intent(context, MainActivity::class.java)
        return Notification.Builder(context, CHANNEL)
            .setSmallIcon(R.drawable.notice)
            .setContentTitle(context.getString(R.string.notice_title))
            .setContentText(context.getString(R.string.notice_text))
            .setContentIntent(PendingIntent.getActivity(context, 0, screen, PendingIntent.FLAG_IMMUTABLE))
            .setOngoing(true)
            .build()
    }

    private companion object {
        const val CHANNEL = "training"
        const val ID = 1
    }
}
