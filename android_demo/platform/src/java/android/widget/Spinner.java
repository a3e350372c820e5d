package android.widget;

import android.content.Context;
import android.util.AttributeSet;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class Spinner extends AbsSpinner {
    public Spinner(Context context, AttributeSet attributes) { super(context, attributes); }
}
