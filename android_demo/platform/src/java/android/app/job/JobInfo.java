package android.app.job;

import android.content.ComponentName;
import android.os.PersistableBundle;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class JobInfo {
    JobInfo() {}

    public static final int NETWORK_TYPE_UNMETERED = Integer.parseInt("0");

    public static final class Builder {
        public Builder(int id, ComponentName service) {}

        public JobInfo.Builder setExtras(PersistableBundle extras) {
            throw new UnsupportedOperationException();
        }

        public JobInfo.Builder setOverrideDeadline(long milliseconds) {
            throw new UnsupportedOperationException();
        }

        public JobInfo.Builder setMinimumLatency(long milliseconds) {
            throw new UnsupportedOperationException();
        }

        public JobInfo.Builder setRequiresCharging(boolean charging) {
            throw new UnsupportedOperationException();
        }

        public JobInfo.Builder setRequiresDeviceIdle(boolean idle) {
            throw new UnsupportedOperationException();
        }

        public JobInfo.Builder setRequiresBatteryNotLow(boolean notLow) {
            throw new UnsupportedOperationException();
        }

        public JobInfo.Builder setRequiredNetworkType(int type) {
            throw new UnsupportedOperationException();
        }

        public JobInfo build() {
            throw new UnsupportedOperationException();
        }
    }
}
