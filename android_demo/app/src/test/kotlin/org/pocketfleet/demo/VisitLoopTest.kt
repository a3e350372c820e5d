package org.pocketfleet.demo

import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.runBlocking
import org.pocketfleet.core.Clock
import org.pocketfleet.core.FormatException
import org.pocketfleet.core.Ineligible
import org.pocketfleet.core.RoundOutcome
import java.io.IOException
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs
import kotlin.test.assertNull

class VisitLoopTest {
    private val stage = MutableStateFlow<Stage>(Stage.Resting)
    private val slept = mutableListOf<Double>()
    private val clock = object : Clock {
        override fun elapsedS() = 0.0

        override fun wallS() = 0.0

        override suspend fun sleep(seconds: Double) {
            slept += seconds
        }
    }

    private fun run(vararg outcomes: () -> RoundOutcome): Double? {
        val coming = outcomes.iterator()
        val again = runBlocking { VisitLoop({ coming.next()() }, clock, stage).run() }
        assertEquals(false, coming.hasNext())
        return again
    }

    private fun reported(round: Long) = RoundOutcome.Reported(round, 1, 5, 0.5, 2.0, 1.0)

    @Test
    fun `while there is work, one visit follows the other`() {
        val full = RoundOutcome.TurnedAway("round_full", "full", 600.0)
        val again = run({ reported(1) }, { RoundOutcome.Evaluated(2) }, { full })
        assertEquals(600.0, again)
        assertEquals(listOf(VisitLoop.LEAST_WAIT_S, VisitLoop.LEAST_WAIT_S), slept)
        assertEquals(Stage.Ended(Ending.NO_WORK, "full"), stage.value)
    }

    @Test
    fun `a place that is held for exactly so long is waited for within the job`() {
        run({ RoundOutcome.TurnedAway("held", "wait", 7.5) }, { RoundOutcome.TurnedAway("paused", "paused", 3600.0) })
        assertEquals(listOf(7.5), slept)
    }

    @Test
    fun `nobody asks again and again at once`() {
        run({ RoundOutcome.TurnedAway("preparing", "", 0.0) }, { RoundOutcome.TurnedAway("paused", "", 3600.0) })
        assertEquals(listOf(VisitLoop.LEAST_WAIT_S), slept)
    }

    @Test
    fun `who is not needed or not known comes no more`() {
        assertNull(run({ RoundOutcome.TurnedAway("upgrade", "too old", null) }))
        assertEquals(Stage.Ended(Ending.NEVER_AGAIN, "too old"), stage.value)
        assertNull(run({ RoundOutcome.Revoked }))
        assertEquals(Stage.Ended(Ending.REVOKED), stage.value)
    }

    @Test
    fun `what stands in the way now is looked at later`() {
        val cases = listOf(
            RoundOutcome.NotEligible(Ineligible.METERED) to Stage.Ended(Ending.NOT_ELIGIBLE, "metered"),
            RoundOutcome.Dropped("deadline") to Stage.Ended(Ending.DROPPED, "deadline"),
            RoundOutcome.NotReached("no route") to Stage.Ended(Ending.FAILED, "no route"),
        )
        for ((outcome, shown) in cases) {
            assertEquals(VisitLoop.AGAIN_S, run({ outcome }))
            assertEquals(shown, stage.value)
        }
    }

    @Test
    fun `a failure is shown and does not end the app`() {
        assertEquals(VisitLoop.AGAIN_S, run({ throw FormatException("no protocol") }))
        assertEquals(Stage.Ended(Ending.FAILED, "no protocol"), stage.value)
        assertEquals(VisitLoop.AGAIN_S, run({ throw IllegalArgumentException("takes 13 numbers") }))
        val wrong = assertIs<Stage.Ended>(stage.value)
        assertEquals("java.lang.IllegalArgumentException: takes 13 numbers", wrong.detail)
        assertEquals(VisitLoop.AGAIN_S, run({ throw IOException("read-only") }))
        assertEquals(Stage.Ended(Ending.FAILED, "java.io.IOException: read-only"), stage.value)
        assertEquals(VisitLoop.AGAIN_S, run({ throw UnsatisfiedLinkError("libfbjni.so") }))
        assertEquals(Stage.Ended(Ending.FAILED, "java.lang.UnsatisfiedLinkError: libfbjni.so"), stage.value)
    }

    @Test
    fun `a job that is stopped stays stopped`() {
        assertFailsWith<CancellationException> { run({ throw CancellationException("stop") }) }
        assertEquals(Stage.Ended(Ending.STOPPED), stage.value)
    }
}
