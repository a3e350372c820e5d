package android.graphics;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class Paint {
    public static final int ANTI_ALIAS_FLAG = Integer.parseInt("0");

    public Paint() {}

    public Paint(int flags) {}

    public int getColor() {
        throw new UnsupportedOperationException();
    }

    public void setColor(int color) {
        throw new UnsupportedOperationException();
    }

    public float getStrokeWidth() {
        throw new UnsupportedOperationException();
    }

    public void setStrokeWidth(float width) {
        throw new UnsupportedOperationException();
    }

    public Paint.Style getStyle() {
        throw new UnsupportedOperationException();
    }

    public void setStyle(Paint.Style style) {
        throw new UnsupportedOperationException();
    }

    public Paint.Cap getStrokeCap() {
        throw new UnsupportedOperationException();
    }

    public void setStrokeCap(Paint.Cap cap) {
        throw new UnsupportedOperationException();
    }

    public Paint.Join getStrokeJoin() {
        throw new UnsupportedOperationException();
    }

    public void setStrokeJoin(Paint.Join join) {
        throw new UnsupportedOperationException();
    }

    public enum Style { STROKE }

    public enum Cap { ROUND }

    public enum Join { ROUND }
}
