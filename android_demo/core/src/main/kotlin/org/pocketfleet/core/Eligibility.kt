package org.pocketfleet.core

/** Why a phone may not train, the first that holds in this order; [word] is what logs and the service call it. */
enum class Ineligible {
    NO_EXAMPLES,
    LOW_MEMORY,
    IN_USE,
    NOT_CHARGING,
    METERED,
    LOW_BATTERY,
    TOO_HOT,
    ;

    val word: String = name.lowercase(java.util.Locale.ROOT)
}

/** What a phone must be to train; each assignment brings its own. */
data class Rule(
    val idle: Boolean = true,
    val charging: Boolean = true,
    val unmetered: Boolean = true,
    val minBatteryRatio: Double = 0.3,
    val minExamples: Long = 1,
) {
    init {
        require(minBatteryRatio in 0.0..1.0) { "min_battery_ratio must be 0 to 1, got $minBatteryRatio" }
        require(minExamples >= 1) { "min_examples must be 1 or more, got $minExamples" }
    }
}

/**
 * May this phone train? The rule of the simulator's phones, case by case the same.
 *
 * To start, the training program and the runtime around it must fit into the free memory less a headroom, and the phone
 * must be below Android's thermal status "moderate" and 43 degrees. A training that runs needs what it holds and no
 * headroom, and stops at "critical" or 46.5 degrees. What the phone does not tell is no obstacle. All else is asked
 * alike before and while it trains.
 */
object Eligibility {
    /** An app process with a loaded native runtime, beside what the program plans (assumed). */
    const val RUNTIME_BYTES = 64L shl 20

    /** The share of free memory left alone, so that the low-memory killer has no reason to look (assumed). */
    const val HEADROOM_RATIO = 0.1

    /** `PowerManager.THERMAL_STATUS_MODERATE`: from here on Android's JobScheduler starts no job of usual priority. */
    const val START_THERMAL_STATUS = 2

    /**
     * `PowerManager.THERMAL_STATUS_CRITICAL`: Android 11 and 12 stop all jobs here. Later ones stop them at "severe" by
     * themselves, unless the user sees the app or asked for the job: who runs in a job hears of that from it.
     */
    const val STOP_THERMAL_STATUS = 4

    /** The same two as a skin's degrees: a Pixel 8's published policy. */
    const val START_CELSIUS = 43.0
    const val STOP_CELSIUS = 46.5

    /**
     * The first reason against it; null: it may.
     *
     * @param numExamples on the device, those that it holds out among them.
     * @param neededMemoryBytes what the program plans ([PlannedMemory.trainingBytes]).
     * @param training whether it runs already.
     */
    fun judge(
        rule: Rule,
        conditions: PhoneConditions,
        numExamples: Long,
        neededMemoryBytes: Long,
        training: Boolean = false,
    ): Ineligible? {
        require(neededMemoryBytes >= 0) { "neededMemoryBytes must be 0 or more, got $neededMemoryBytes" }
        return when {
            numExamples < rule.minExamples -> Ineligible.NO_EXAMPLES
            !fits(conditions.freeMemoryBytes, neededMemoryBytes, training) -> Ineligible.LOW_MEMORY
            rule.idle && !conditions.idle -> Ineligible.IN_USE
            rule.charging && !conditions.charging -> Ineligible.NOT_CHARGING
            rule.unmetered && !conditions.unmetered -> Ineligible.METERED
            conditions.batteryRatio < rule.minBatteryRatio -> Ineligible.LOW_BATTERY
            isHot(conditions, training) -> Ineligible.TOO_HOT
            else -> null
        }
    }

    private fun fits(freeBytes: Long, neededBytes: Long, training: Boolean): Boolean {
        val usable = if (training) freeBytes.toDouble() else freeBytes * (1.0 - HEADROOM_RATIO)
        return usable >= neededBytes.toDouble() + RUNTIME_BYTES
    }

    private fun isHot(conditions: PhoneConditions, training: Boolean): Boolean {
        val status = if (training) STOP_THERMAL_STATUS else START_THERMAL_STATUS
        val celsius = if (training) STOP_CELSIUS else START_CELSIUS
        return (conditions.thermalStatus ?: 0) >= status || (conditions.skinCelsius ?: Double.NaN) >= celsius
    }
}
