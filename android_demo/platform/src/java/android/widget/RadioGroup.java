package android.widget;

import android.content.Context;
import android.util.AttributeSet;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class RadioGroup extends LinearLayout {
    public RadioGroup(Context context, AttributeSet attributes) { super(context, attributes); }

    public void check(int id) {
        throw new UnsupportedOperationException();
    }

    public void setOnCheckedChangeListener(RadioGroup.OnCheckedChangeListener listener) {
        throw new UnsupportedOperationException();
    }

    public interface OnCheckedChangeListener {
        void onCheckedChanged(RadioGroup group, int id);
    }
}
