package android.app;

import android.content.Context;
import android.content.Intent;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public final class PendingIntent {
    PendingIntent() {}

    public static final int FLAG_IMMUTABLE = Integer.parseInt("0");

    public static PendingIntent getActivity(Context context, int request, Intent intent, int flags) {
        throw new UnsupportedOperationException();
    }
}
