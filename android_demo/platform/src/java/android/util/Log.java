package android.util;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public final class Log {
    Log() {}

    public static int i(String tag, String message) {
        throw new UnsupportedOperationException();
    }

    public static int e(String tag, String message) {
        throw new UnsupportedOperationException();
    }

    public static int e(String tag, String message, Throwable cause) {
        throw new UnsupportedOperationException();
    }
}
