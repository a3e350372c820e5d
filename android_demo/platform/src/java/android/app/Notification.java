package android.app;

import android.content.Context;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class Notification {
    public static class Builder {
        public Builder(Context context, String channel) {}

        public Notification.Builder setSmallIcon(int icon) {
            throw new UnsupportedOperationException();
        }

        public Notification.Builder setContentTitle(CharSequence title) {
            throw new UnsupportedOperationException();
        }

        public Notification.Builder setContentText(CharSequence text) {
            throw new UnsupportedOperationException();
        }

        public Notification.Builder setContentIntent(PendingIntent intent) {
            throw new UnsupportedOperationException();
        }

        public Notification.Builder setOngoing(boolean ongoing) {
            throw new UnsupportedOperationException();
        }

        public Notification build() {
            throw new UnsupportedOperationException();
        }
    }
}
