package android.util;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class DisplayMetrics {
    public float density;
}
