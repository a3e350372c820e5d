package android.app.job;

import android.os.PersistableBundle;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class JobParameters {
    JobParameters() {}

    public int getJobId() {
        throw new UnsupportedOperationException();
    }

    public PersistableBundle getExtras() {
        throw new UnsupportedOperationException();
    }
}
