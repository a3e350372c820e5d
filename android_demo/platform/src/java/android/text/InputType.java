package android.text;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public interface InputType {
    int TYPE_CLASS_NUMBER = Integer.parseInt("0");
    int TYPE_NUMBER_FLAG_DECIMAL = Integer.parseInt("0");
    int TYPE_NUMBER_FLAG_SIGNED = Integer.parseInt("0");
}
