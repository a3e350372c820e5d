package android.view;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public final class MotionEvent {
    MotionEvent() {}

    public static final int ACTION_DOWN = Integer.parseInt("0");
    public static final int ACTION_MOVE = Integer.parseInt("0");
    public static final int ACTION_UP = Integer.parseInt("0");

    public int getActionMasked() {
        throw new UnsupportedOperationException();
    }

    public float getX() {
        throw new UnsupportedOperationException();
    }

    public float getY() {
        throw new UnsupportedOperationException();
    }

    public int getHistorySize() {
        throw new UnsupportedOperationException();
    }

    public float getHistoricalX(int place) {
        throw new UnsupportedOperationException();
    }

    public float getHistoricalY(int place) {
        throw new UnsupportedOperationException();
    }
}
