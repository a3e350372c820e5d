package android.view;

import android.content.Context;
import android.content.res.Resources;
import android.graphics.Canvas;
import android.util.AttributeSet;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class View {
    public static final int VISIBLE = Integer.parseInt("0");
    public static final int GONE = Integer.parseInt("0");

    public View(Context context, AttributeSet attributes) {}

    protected void onDraw(Canvas canvas) {}

    protected void onMeasure(int widthMeasureSpec, int heightMeasureSpec) {}

    protected final void setMeasuredDimension(int width, int height) {
        throw new UnsupportedOperationException();
    }

    public boolean onTouchEvent(MotionEvent event) {
        throw new UnsupportedOperationException();
    }

    public boolean performClick() {
        throw new UnsupportedOperationException();
    }

    public void invalidate() {
        throw new UnsupportedOperationException();
    }

    public final int getWidth() {
        throw new UnsupportedOperationException();
    }

    public final int getHeight() {
        throw new UnsupportedOperationException();
    }

    public final Context getContext() {
        throw new UnsupportedOperationException();
    }

    public Resources getResources() {
        throw new UnsupportedOperationException();
    }

    public final ViewParent getParent() {
        throw new UnsupportedOperationException();
    }

    public static int generateViewId() {
        throw new UnsupportedOperationException();
    }

    public int getId() {
        throw new UnsupportedOperationException();
    }

    public void setId(int id) {
        throw new UnsupportedOperationException();
    }

    public int getVisibility() {
        throw new UnsupportedOperationException();
    }

    public void setVisibility(int visibility) {
        throw new UnsupportedOperationException();
    }

    public boolean isEnabled() {
        throw new UnsupportedOperationException();
    }

    public void setEnabled(boolean enabled) {
        throw new UnsupportedOperationException();
    }

    public boolean isSaveEnabled() {
        throw new UnsupportedOperationException();
    }

    public void setSaveEnabled(boolean enabled) {
        throw new UnsupportedOperationException();
    }

    public int getMinimumHeight() {
        throw new UnsupportedOperationException();
    }

    public void setMinimumHeight(int pixels) {
        throw new UnsupportedOperationException();
    }

    public int getLabelFor() {
        throw new UnsupportedOperationException();
    }

    public void setLabelFor(int id) {
        throw new UnsupportedOperationException();
    }

    public CharSequence getContentDescription() {
        throw new UnsupportedOperationException();
    }

    public void setContentDescription(CharSequence description) {
        throw new UnsupportedOperationException();
    }

    public void setOnClickListener(View.OnClickListener listener) {
        throw new UnsupportedOperationException();
    }

    public interface OnClickListener {
        void onClick(View view);
    }

    public static class MeasureSpec {
        public static int getSize(int spec) {
            throw new UnsupportedOperationException();
        }
    }
}
