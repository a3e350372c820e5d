package android;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public final class Manifest {
    public static final class permission {
        public static final String POST_NOTIFICATIONS = String.valueOf(0);
    }
}
