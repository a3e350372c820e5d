package android.graphics;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class Path {
    public Path() {}

    public void reset() {
        throw new UnsupportedOperationException();
    }

    public void moveTo(float x, float y) {
        throw new UnsupportedOperationException();
    }

    public void lineTo(float x, float y) {
        throw new UnsupportedOperationException();
    }

    public void addCircle(float x, float y, float radius, Path.Direction direction) {
        throw new UnsupportedOperationException();
    }

    public enum Direction { CW }
}
