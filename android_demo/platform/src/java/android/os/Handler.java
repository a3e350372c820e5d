package android.os;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class Handler {
    public Handler(Looper looper) {}

    public final boolean post(Runnable work) {
        throw new UnsupportedOperationException();
    }
}
