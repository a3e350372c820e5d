package android.view;

import android.content.ContextWrapper;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class ContextThemeWrapper extends ContextWrapper {
    public ContextThemeWrapper() { super(null); }
}
