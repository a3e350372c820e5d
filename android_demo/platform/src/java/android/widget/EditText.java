package android.widget;

import android.content.Context;
import android.text.Editable;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class EditText extends TextView {
    public EditText(Context context) { super(context); }

    public Editable getText() {
        throw new UnsupportedOperationException();
    }
}
