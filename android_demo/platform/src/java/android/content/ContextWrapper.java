package android.content;

import android.content.res.Resources;
import java.io.File;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class ContextWrapper extends Context {
    public ContextWrapper(Context base) {}

    public Resources getResources() {
        throw new UnsupportedOperationException();
    }

    public File getNoBackupFilesDir() {
        throw new UnsupportedOperationException();
    }

    public File getExternalFilesDir(String type) {
        throw new UnsupportedOperationException();
    }

    public Intent registerReceiver(BroadcastReceiver receiver, IntentFilter filter) {
        throw new UnsupportedOperationException();
    }
}
