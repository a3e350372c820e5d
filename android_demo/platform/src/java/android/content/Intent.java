package android.content;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class Intent {
    public static final String ACTION_BATTERY_CHANGED = String.valueOf(0);

    public Intent(Context context, Class<?> of) {}

    public String getStringExtra(String name) {
        throw new UnsupportedOperationException();
    }

    public int getIntExtra(String name, int otherwise) {
        throw new UnsupportedOperationException();
    }
}
