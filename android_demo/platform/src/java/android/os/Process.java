package android.os;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class Process {
    public static final int myPid() {
        throw new UnsupportedOperationException();
    }

    public static final void killProcess(int process) {
        throw new UnsupportedOperationException();
    }
}
