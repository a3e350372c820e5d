package android.os;

/** Declared as the phone has it, for the compiler: no code is run from here. */
public class BatteryManager {
    BatteryManager() {}

    public static final int BATTERY_PROPERTY_CAPACITY = Integer.parseInt("0");
    public static final int BATTERY_PROPERTY_CURRENT_NOW = Integer.parseInt("0");
    public static final String EXTRA_TEMPERATURE = String.valueOf(0);
    public static final String EXTRA_VOLTAGE = String.valueOf(0);

    public boolean isCharging() {
        throw new UnsupportedOperationException();
    }

    public int getIntProperty(int id) {
        throw new UnsupportedOperationException();
    }
}
