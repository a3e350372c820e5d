package android.widget;

import android.content.Context;
import android.text.TextWatcher;
import android.util.AttributeSet;
import android.view.View;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class TextView extends View {
    public TextView(Context context) { super(context, null); }

    public TextView(Context context, AttributeSet attributes) { super(context, attributes); }

    public CharSequence getText() {
        throw new UnsupportedOperationException();
    }

    public final void setText(CharSequence text) {
        throw new UnsupportedOperationException();
    }

    public final void setText(int id) {
        throw new UnsupportedOperationException();
    }

    public int getInputType() {
        throw new UnsupportedOperationException();
    }

    public void setInputType(int type) {
        throw new UnsupportedOperationException();
    }

    public void addTextChangedListener(TextWatcher watcher) {
        throw new UnsupportedOperationException();
    }
}
