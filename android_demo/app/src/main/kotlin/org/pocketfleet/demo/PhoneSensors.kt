package org.pocketfleet.demo

import android.app.ActivityManager
import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.net.ConnectivityManager
import android.os.BatteryManager
import android.os.Build
import android.os.PowerManager
import org.pocketfleet.core.PhoneConditions
import org.pocketfleet.core.Sensors

/** What Android tells of the phone; needs no permission but to see the network's state. */
class PhoneSensors(private val context: Context) : Sensors {
    private val power = service(PowerManager::class.java)
    private val battery = service(BatteryManager::class.java)
    private val network = service(ConnectivityManager::class.java)
    private val activities = service(ActivityManager::class.java)

    override fun read(): PhoneConditions = PhoneConditions(
        idle = !power.isInteractive,
        charging = battery.isCharging,
        unmetered = network.activeNetwork != null && !network.isActiveNetworkMetered,
        // A phone that does not tell is taken to be empty: it does not train.
        batteryRatio = batteryRatio() ?: 0.0,
        freeMemoryBytes = freeMemoryBytes(),
        thermalStatus = thermalStatus(),
    )

    /** Beside the conditions what a benchmark tells. */
    fun moment(): PhoneMoment {
        val told = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED))
        return PhoneMoment(
            batteryRatio = batteryRatio(),
            charging = battery.isCharging,
            batteryAmperes = batteryAmperes(),
            batteryVolts = told?.figure(BatteryManager.EXTRA_VOLTAGE)?.let { it / MILLIVOLTS }?.takeIf { it > 0 },
            batteryCelsius = told?.figure(BatteryManager.EXTRA_TEMPERATURE)?.let { it / TENTHS },
            thermalStatus = thermalStatus(),
            freeMemoryBytes = freeMemoryBytes(),
        )
    }

    /** All memory of the phone. */
    fun memoryBytes(): Long = memory().totalMem

    private fun batteryRatio(): Double? = battery.getIntProperty(BatteryManager.BATTERY_PROPERTY_CAPACITY)
        .takeIf { it in 0..WHOLE }?.let { it / WHOLE.toDouble() }

    /** Android counts microamperes; a phone without that meter tells the smallest number, or 0 before Android 9. */
    private fun batteryAmperes(): Double? = battery.getIntProperty(BatteryManager.BATTERY_PROPERTY_CURRENT_NOW)
        .takeIf { it != Int.MIN_VALUE && it != 0 }?.let { it / MICROAMPERES }

    private fun thermalStatus(): Int? =
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q) power.currentThermalStatus else null

    /** Down to `threshold` Android starts to end other apps; what this one holds already is its own to use. */
    private fun freeMemoryBytes(): Long =
        memory().let { (it.availMem - it.threshold + ProcessMemory.ownBytes()).coerceAtLeast(0) }

    private fun memory() = ActivityManager.MemoryInfo().also(activities::getMemoryInfo)

    private fun Intent.figure(name: String): Double? =
        getIntExtra(name, Int.MIN_VALUE).takeIf { it != Int.MIN_VALUE }?.toDouble()

    private fun <T> service(kind: Class<T>): T = checkNotNull(context.getSystemService(kind)) { "Android has no $kind" }

    private companion object {
        const val WHOLE = 100
        const val MILLIVOLTS = 1e3
        const val TENTHS = 10.0
        const val MICROAMPERES = 1e6
    }
}
