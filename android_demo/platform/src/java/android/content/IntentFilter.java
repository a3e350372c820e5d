package android.content;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class IntentFilter {
    public IntentFilter(String action) {}
}
