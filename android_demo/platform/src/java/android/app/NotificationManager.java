package android.app;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class NotificationManager {
    NotificationManager() {}

    public static final int IMPORTANCE_LOW = Integer.parseInt("0");

    public void createNotificationChannel(NotificationChannel channel) {
        throw new UnsupportedOperationException();
    }

    public void notify(int id, Notification notification) {
        throw new UnsupportedOperationException();
    }

    public void cancel(int id) {
        throw new UnsupportedOperationException();
    }
}
