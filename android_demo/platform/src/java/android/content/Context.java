package android.content;

import android.content.res.Resources;
import java.io.File;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public abstract class Context {
    public final String getString(int id) {
        throw new UnsupportedOperationException();
    }

    public final String getString(int id, Object... arguments) {
        throw new UnsupportedOperationException();
    }

    public final int getColor(int id) {
        throw new UnsupportedOperationException();
    }

    public final <T> T getSystemService(Class<T> kind) {
        throw new UnsupportedOperationException();
    }

    public abstract Resources getResources();

    public abstract File getNoBackupFilesDir();

    public abstract File getExternalFilesDir(String type);

    public abstract Intent registerReceiver(BroadcastReceiver receiver, IntentFilter filter);
}
