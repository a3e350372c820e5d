package org.pocketfleet.core

/** How one visit of the round loop ended, and when to come again. */
sealed interface RoundOutcome {
    /** The rule forbids it now: the service was not asked, or what is under way waits. */
    data class NotEligible(val reason: Ineligible) : RoundOutcome

    /** The service had no work; null: there never will be any for this app. */
    data class TurnedAway(val reason: String, val message: String, val retryAfterS: Double?) : RoundOutcome

    /** The report is durable on the service and counts. */
    data class Reported(
        val round: Long,
        val modelVersion: Long,
        val steps: Int,
        val trainLoss: Double,
        val metricGlobal: Double?,
        val metricPersonalised: Double?,
    ) : RoundOutcome

    /** Two versions were measured on what this device holds out, and the service counted it. */
    data class Evaluated(val version: Long) : RoundOutcome

    /** Work was begun and given up; nothing of it counts. */
    data class Dropped(val reason: String) : RoundOutcome

    /** The service could not be reached in time; what is finished is kept, and sent at the next visit. */
    data class NotReached(val message: String) : RoundOutcome

    /** The service knows this device no more: it must enrol again. */
    data object Revoked : RoundOutcome
}
