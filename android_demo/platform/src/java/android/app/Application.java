package android.app;

import android.content.ContextWrapper;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class Application extends ContextWrapper {
    public Application() { super(null); }

    public void onCreate() {}
}
