package org.pocketfleet.core

/** Clocks, in seconds. */
interface Clock {
    /** Since any fixed moment; never goes back, goes on while the phone sleeps. */
    fun elapsedS(): Double

    /** Since 1970; may jump. */
    fun wallS(): Double

    /** Come back after [seconds]; cancellable. */
    suspend fun sleep(seconds: Double)
}

/**
 * How the phone is at the moment.
 *
 * [freeMemoryBytes] is what this app can hope for: available, and what its own process holds already, so that a
 * training under way does not take from itself.
 * [thermalStatus] is Android's `PowerManager` severity, 0 (none) to 6 (shutdown), null where the phone does not tell;
 * [skinCelsius] may be unknown too.
 */
data class PhoneConditions(
    val idle: Boolean,
    val charging: Boolean,
    val unmetered: Boolean,
    val batteryRatio: Double,
    val freeMemoryBytes: Long,
    val thermalStatus: Int?,
    val skinCelsius: Double? = null,
)

/** The phone's sensors. */
fun interface Sensors {
    fun read(): PhoneConditions
}

/** What the phone is, as it tells the service. */
data class PhoneIdentity(
    val model: String,
    val manufacturer: String,
    val osVersion: String,
    val memoryBytes: Long,
    val appVersion: String,
)

/** The device's own examples, in the order in which they came. */
interface ExampleSource {
    /** How many there are now; grows with use. */
    val count: Int

    /** The examples at [places], each from 0 to below [count], as the programs take them. */
    fun take(places: IntArray): Batch
}
