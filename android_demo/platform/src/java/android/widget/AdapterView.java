package android.widget;

import android.content.Context;
import android.util.AttributeSet;
import android.view.ViewGroup;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public abstract class AdapterView<T extends Adapter> extends ViewGroup {
    public AdapterView(Context context, AttributeSet attributes) { super(context, attributes); }

    public int getSelectedItemPosition() {
        throw new UnsupportedOperationException();
    }
}
