package android.net;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class ConnectivityManager {
    ConnectivityManager() {}

    public Network getActiveNetwork() {
        throw new UnsupportedOperationException();
    }

    public boolean isActiveNetworkMetered() {
        throw new UnsupportedOperationException();
    }
}
