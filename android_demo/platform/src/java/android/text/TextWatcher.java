package android.text;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public interface TextWatcher {
    void beforeTextChanged(CharSequence text, int start, int count, int after);

    void onTextChanged(CharSequence text, int start, int before, int count);

    void afterTextChanged(Editable text);
}
