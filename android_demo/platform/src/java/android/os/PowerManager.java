package android.os;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public final class PowerManager {
    PowerManager() {}

    public boolean isInteractive() {
        throw new UnsupportedOperationException();
    }

    // Of API 29: called on such phones only.
    public int getCurrentThermalStatus() {
        throw new UnsupportedOperationException();
    }
}
