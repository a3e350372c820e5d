package org.pocketfleet.core

import kotlin.math.min
import kotlin.math.pow

/**
 * How long somebody goes on asking: until [untilS] of the elapsed clock, or [tries] times in all; 0: any number.
 *
 * [look] is called before each further try, and throws what ends them: the phone may be on another network by then.
 */
class Patience(
    val untilS: Double = Double.POSITIVE_INFINITY,
    val tries: Int = 0,
    val look: () -> Unit = {},
)

/**
 * When what failed is tried again: after a back-off that doubles, with a drawn share of it left out so that devices do
 * not come together.
 *
 * @param seed tells the draws of devices apart.
 * @param tell hears when the service cannot be reached for long.
 */
class Retries(private val clock: Clock, private val seed: Long, private val tell: (String) -> Unit = {}) {
    private var waits = 0L

    /**
     * Wait before the next try.
     *
     * @param waitS so many seconds; null: a back-off.
     * @param failures in a row, 1 or more.
     * @param cause of the last one.
     * @throws Unreachable there is no next try.
     */
    suspend fun pause(waitS: Double?, failures: Int, patience: Patience, cause: Exception?) {
        val seconds = waitS ?: backOffS(failures)
        val found = cause?.message?.let { ": $it" }.orEmpty()
        val tries = patience.tries
        if (clock.elapsedS() + seconds >= patience.untilS || (tries in 1..failures)) {
            throw Unreachable("the service cannot be reached$found", cause)
        }
        if (failures == TOLD_FAILURES) tell("the service cannot be reached, still trying$found")
        clock.sleep(seconds)
        patience.look()
    }

    private fun backOffS(failures: Int): Double {
        waits += 1
        val share = Draws.uniform(Draws.key(seed, "service.back_off", waits), 1)[0]
        return min(FIRST_BACK_OFF_S * 2.0.pow(failures - 1), LONGEST_BACK_OFF_S) * (1.0 - share / 2.0)
    }

    private companion object {
        // The first wait and the longest; those of common HTTP clients.
        const val FIRST_BACK_OFF_S = 0.25
        const val LONGEST_BACK_OFF_S = 30.0

        // After so many failures in a row, some seconds, people want to know.
        const val TOLD_FAILURES = 4
    }
}
