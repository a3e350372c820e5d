package android.app;

import android.content.ContextWrapper;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public abstract class Service extends ContextWrapper {
    public Service() { super(null); }

    public void onDestroy() {}

    public final Application getApplication() {
        throw new UnsupportedOperationException();
    }
}
