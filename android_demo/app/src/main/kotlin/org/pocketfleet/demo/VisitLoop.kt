package org.pocketfleet.demo

import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.flow.MutableStateFlow
import org.pocketfleet.core.Clock
import org.pocketfleet.core.PocketfleetException
import org.pocketfleet.core.RoundOutcome

/**
 * One job's worth of visits to the service: one after the other while there is work, and what the screen sees of it.
 *
 * @param visit one visit of the round loop.
 * @param stage what the screen shows of it.
 */
class VisitLoop(
    private val visit: suspend () -> RoundOutcome,
    private val clock: Clock,
    private val stage: MutableStateFlow<Stage>,
) {
    /**
     * Visit until there is nothing to do for a while.
     *
     * @return seconds until it is worth coming again; null: never, as this app is.
     * @throws CancellationException the job was stopped; with what was under way it is as the assignment's
     * `partial_work` says.
     */
    suspend fun run(): Double? {
        while (true) {
            stage.value = Stage.Working
            val outcome = try {
                visit()
            } catch (exception: CancellationException) {
                stage.value = Stage.Ended(Ending.STOPPED)
                throw exception
            } catch (exception: PocketfleetException) {
                return failed(exception.message.orEmpty())
            } catch (exception: Exception) {
                // Such as examples of one task under the programs of another: told, and no reason to end the app.
                return failed("$exception")
            } catch (error: LinkageError) {
                // Native libraries that this phone cannot load.
                return failed("$error")
            }
            stage.value = note(outcome)
            val afterS = again(outcome) ?: return null
            if (afterS > LONGEST_WAIT_S) return afterS
            clock.sleep(afterS)
        }
    }

    private fun failed(detail: String): Double {
        stage.value = Stage.Ended(Ending.FAILED, detail)
        return AGAIN_S
    }

    private fun note(outcome: RoundOutcome): Stage = when (outcome) {
        is RoundOutcome.Reported -> Stage.Ended(Ending.REPORTED)
        is RoundOutcome.Evaluated -> Stage.Ended(Ending.EVALUATED)
        is RoundOutcome.NotEligible -> Stage.Ended(Ending.NOT_ELIGIBLE, outcome.reason.word)
        is RoundOutcome.Dropped -> Stage.Ended(Ending.DROPPED, outcome.reason)
        is RoundOutcome.TurnedAway ->
            Stage.Ended(if (outcome.retryAfterS == null) Ending.NEVER_AGAIN else Ending.NO_WORK, outcome.message)
        is RoundOutcome.NotReached -> Stage.Ended(Ending.FAILED, outcome.message)
        RoundOutcome.Revoked -> Stage.Ended(Ending.REVOKED)
    }

    private fun again(outcome: RoundOutcome): Double? = when (outcome) {
        is RoundOutcome.Reported, is RoundOutcome.Evaluated -> LEAST_WAIT_S
        is RoundOutcome.TurnedAway -> outcome.retryAfterS?.coerceAtLeast(LEAST_WAIT_S)
        is RoundOutcome.NotEligible, is RoundOutcome.Dropped, is RoundOutcome.NotReached -> AGAIN_S
        RoundOutcome.Revoked -> null
    }

    companion object {
        /** JobScheduler's own shortest period (`JobInfo.getMinPeriodMillis`): conditions change no faster. */
        const val AGAIN_S = 900.0

        /** A longer wait gives the job back to the system; a job may last ten minutes. */
        const val LONGEST_WAIT_S = 60.0

        /** No phone asks faster: the service lets a device make twenty requests a second. */
        const val LEAST_WAIT_S = 1.0
    }
}
