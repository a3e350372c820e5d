package org.pocketfleet.demo

import android.os.SystemClock
import kotlinx.coroutines.delay
import org.pocketfleet.core.Clock
import kotlin.math.ceil

/** The phone's own clocks. */
object PhoneClock : Clock {
    private const val NANOS = 1e9
    private const val MILLIS = 1e3

    override fun elapsedS(): Double = SystemClock.elapsedRealtimeNanos() / NANOS

    override fun wallS(): Double = System.currentTimeMillis() / MILLIS

    override suspend fun sleep(seconds: Double) = delay(ceil(seconds * MILLIS).toLong())
}
