package android.os;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public final class Bundle extends BaseBundle {
    public float[] getFloatArray(String key) {
        throw new UnsupportedOperationException();
    }

    public void putFloatArray(String key, float[] value) {
        throw new UnsupportedOperationException();
    }
}
