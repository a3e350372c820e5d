package android.widget;

import android.content.Context;
import android.util.AttributeSet;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public abstract class AbsSpinner extends AdapterView<SpinnerAdapter> {
    public AbsSpinner(Context context, AttributeSet attributes) { super(context, attributes); }
}
