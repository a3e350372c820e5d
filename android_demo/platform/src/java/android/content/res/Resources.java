package android.content.res;

import android.util.DisplayMetrics;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class Resources {
    Resources() {}

    public String getString(int id) {
        throw new UnsupportedOperationException();
    }

    public String getString(int id, Object... arguments) {
        throw new UnsupportedOperationException();
    }

    public String[] getStringArray(int id) {
        throw new UnsupportedOperationException();
    }

    public String getQuantityString(int id, int quantity, Object... arguments) {
        throw new UnsupportedOperationException();
    }

    public DisplayMetrics getDisplayMetrics() {
        throw new UnsupportedOperationException();
    }
}
