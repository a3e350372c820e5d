package android.app;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class ActivityManager {
    ActivityManager() {}

    public void getMemoryInfo(ActivityManager.MemoryInfo into) {
        throw new UnsupportedOperationException();
    }

    public static class MemoryInfo {
        public long availMem;
        public long threshold;
        public long totalMem;

        public MemoryInfo() {}
    }
}
