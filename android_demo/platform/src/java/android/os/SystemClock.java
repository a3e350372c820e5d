package android.os;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public final class SystemClock {
    SystemClock() {}

    public static long elapsedRealtimeNanos() {
        throw new UnsupportedOperationException();
    }
}
