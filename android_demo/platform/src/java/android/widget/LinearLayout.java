package android.widget;

import android.content.Context;
import android.util.AttributeSet;
import android.view.ViewGroup;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class LinearLayout extends ViewGroup {
    public LinearLayout(Context context, AttributeSet attributes) { super(context, attributes); }

    public static class LayoutParams extends ViewGroup.LayoutParams {
        public LayoutParams(int width, int height) { super(width, height); }
    }
}
