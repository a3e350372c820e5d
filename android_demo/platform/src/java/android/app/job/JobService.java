package android.app.job;

import android.app.Notification;
import android.app.Service;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public abstract class JobService extends Service {
    // Of API 34: used on such phones only.
    public static final int JOB_END_NOTIFICATION_POLICY_REMOVE = Integer.parseInt("0");

    public abstract boolean onStartJob(JobParameters parameters);

    public abstract boolean onStopJob(JobParameters parameters);

    public final void jobFinished(JobParameters parameters, boolean wantsReschedule) {
        throw new UnsupportedOperationException();
    }

    // Of API 34: called on such phones only.
    public final void setNotification(JobParameters parameters, int id, Notification notification, int policy) {
        throw new UnsupportedOperationException();
    }
}
