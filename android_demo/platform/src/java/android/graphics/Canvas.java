package android.graphics;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class Canvas {
    public void drawRect(float left, float top, float right, float bottom, Paint paint) {
        throw new UnsupportedOperationException();
    }

    public void drawPath(Path path, Paint paint) {
        throw new UnsupportedOperationException();
    }
}
