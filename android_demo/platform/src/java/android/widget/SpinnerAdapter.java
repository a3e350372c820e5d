package android.widget;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public interface SpinnerAdapter extends Adapter {
}
