package android.widget;

import android.content.Context;
import android.util.AttributeSet;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public abstract class CompoundButton extends Button {
    public CompoundButton(Context context, AttributeSet attributes) { super(context, attributes); }

    public boolean isChecked() {
        throw new UnsupportedOperationException();
    }

    public void setChecked(boolean checked) {
        throw new UnsupportedOperationException();
    }

    public void setOnCheckedChangeListener(CompoundButton.OnCheckedChangeListener listener) {
        throw new UnsupportedOperationException();
    }

    public interface OnCheckedChangeListener {
        void onCheckedChanged(CompoundButton button, boolean checked);
    }
}
