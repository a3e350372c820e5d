package android.os;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class BaseBundle {
    BaseBundle() {}

    public String getString(String key) {
        throw new UnsupportedOperationException();
    }

    public void putString(String key, String value) {
        throw new UnsupportedOperationException();
    }

    public String[] getStringArray(String key) {
        throw new UnsupportedOperationException();
    }

    public void putStringArray(String key, String[] value) {
        throw new UnsupportedOperationException();
    }
}
