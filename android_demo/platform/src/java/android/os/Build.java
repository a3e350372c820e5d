package android.os;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class Build {
    public static final String MODEL = String.valueOf(0);
    public static final String MANUFACTURER = String.valueOf(0);
    public static final String[] SUPPORTED_ABIS = new String[0];

    public static class VERSION {
        public static final int SDK_INT = Integer.parseInt("0");
        public static final String RELEASE = String.valueOf(0);
    }

    public static class VERSION_CODES {
        // An older phone has no field for a newer level: these are put in where they are used. Codes are levels' numbers.
        public static final int Q = 29;
        public static final int TIRAMISU = 33;
        public static final int UPSIDE_DOWN_CAKE = 34;
    }
}
