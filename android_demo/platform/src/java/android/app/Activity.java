package android.app;

import android.content.Intent;
import android.os.Bundle;
import android.view.ContextThemeWrapper;
import android.view.View;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class Activity extends ContextThemeWrapper {
    protected void onCreate(Bundle savedInstanceState) {}

    protected void onStart() {}

    protected void onStop() {}

    protected void onNewIntent(Intent intent) {}

    protected void onSaveInstanceState(Bundle outState) {}

    public void setContentView(int layout) {
        throw new UnsupportedOperationException();
    }

    public <T extends View> T findViewById(int id) {
        throw new UnsupportedOperationException();
    }

    public Intent getIntent() {
        throw new UnsupportedOperationException();
    }

    public final Application getApplication() {
        throw new UnsupportedOperationException();
    }

    public final void requestPermissions(String[] permissions, int request) {
        throw new UnsupportedOperationException();
    }
}
