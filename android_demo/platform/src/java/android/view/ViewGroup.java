package android.view;

import android.content.Context;
import android.util.AttributeSet;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public abstract class ViewGroup extends View {
    public ViewGroup(Context context, AttributeSet attributes) { super(context, attributes); }

    public void addView(View child, ViewGroup.LayoutParams parameters) {
        throw new UnsupportedOperationException();
    }

    public static class LayoutParams {
        public static final int MATCH_PARENT = Integer.parseInt("0");
        public static final int WRAP_CONTENT = Integer.parseInt("0");

        public LayoutParams(int width, int height) {}
    }
}
