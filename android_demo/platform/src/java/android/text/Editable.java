package android.text;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public interface Editable extends CharSequence {
}
