package android.app.job;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public abstract class JobScheduler {
    public abstract int schedule(JobInfo job);

    public abstract void cancel(int id);

    public abstract JobInfo getPendingJob(int id);
}
