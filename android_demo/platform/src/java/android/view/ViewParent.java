package android.view;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public interface ViewParent {
    void requestDisallowInterceptTouchEvent(boolean disallow);
}
