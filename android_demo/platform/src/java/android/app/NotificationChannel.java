package android.app;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public final class NotificationChannel {
    public NotificationChannel(String id, CharSequence name, int importance) {}
}
