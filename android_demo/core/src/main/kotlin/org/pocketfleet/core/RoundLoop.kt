package org.pocketfleet.core

import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineDispatcher

/** What the app can do: [programs] are the runtimes that it has by the service's names, with their versions. */
data class AppAbilities(val programs: Map<String, String>, val appVersion: String)

/** What the round loop is made of; everything that differs between a phone and a test is one of these. */
class RoundParts(
    val service: ServiceClient,
    val store: DeviceStore,
    val examples: ExampleSource,
    val sensors: Sensors,
    val clock: Clock,
    val trainers: TrainerFactory,
    val abilities: AppAbilities,
    val compute: CoroutineDispatcher,
    val listener: StepListener = StepListener { _, _, _, _ -> },
)

/**
 * One device's part in its population, a [visit] at a time.
 *
 * 1. What a crash left comes first. Finished work is sent, the same bytes. Unfinished work begins anew while the
 *    service still waits for it.
 * 2. The device judges by itself whether it may train, by the rule of its last assignment and the memory of its last
 *    program; only one that may asks.
 *    What is finished is sent by any that is on a network which the rule allows.
 * 3. Nothing is trained but by programs whose hashes were found right, from weights whose hash was.
 * 4. Between two steps the loop can be cancelled, and looks at the sensors; it ends within a step. The steps done by
 *    then are finished work where the assignment takes partial work; the next visit sends those of a cancelled one.
 * 5. A report is durable here before it is sent. What the device keeps takes effect once the report counts.
 */
class RoundLoop(private val parts: RoundParts) {
    private val store = parts.store
    private val attempt = Attempt(parts)

    /**
     * Come by once; whatever ends it, the next visit goes on from there.
     *
     * @throws CancellationException the coroutine was cancelled; finished work may be in the store all the same.
     * @throws Refused the service does not take what this app says.
     * @throws FormatException what came is none of the protocol, or what the store holds is damaged.
     * @throws StorageException the storage fails, for another reason than that it is full.
     */
    suspend fun visit(): RoundOutcome =
        try {
            store.settle()
            if (store.credential() == null) RoundOutcome.Revoked else left() ?: come()
        } catch (exc: NotNow) {
            RoundOutcome.NotEligible(exc.why)
        } catch (exc: Unreachable) {
            RoundOutcome.NotReached(exc.message.orEmpty())
        } catch (exc: StorageException) {
            if (!exc.isFull) throw exc
            RoundOutcome.Dropped(STORAGE_FULL)
        } catch (exc: Refused) {
            if (!isRevoked(exc)) throw exc
            store.dropCredential()
            RoundOutcome.Revoked
        }

    /** Rule 1; null: there is nothing left of it. */
    private suspend fun left(): RoundOutcome? {
        val report = store.report()
        if (report != null) return attempt.send(report)
        val work = store.work() ?: return null
        if (parts.clock.wallS() >= work.deadlineWallS) return null.also { giveUp(work.assignment, "deadline") }
        judged(work.assignment.rule)?.let { return RoundOutcome.NotEligible(it) }
        val open = parts.service.status(PATIENCE).openAssignments
        if (work.assignment.assignmentId !in open) return null.also { giveUp(work.assignment, "closed") }
        return train(work)
    }

    /** Rule 2, and whatever the service says. */
    private suspend fun come(): RoundOutcome {
        val conditions = parts.sensors.read()
        judged(store.rule(), conditions)?.let { return RoundOutcome.NotEligible(it) }
        val count = parts.examples.count
        val answer = parts.service.checkIn(
            CheckIn(
                programs = parts.abilities.programs,
                appVersion = parts.abilities.appVersion,
                conditions = Conditions.of(conditions),
                evaluates = ExampleSplit(count).heldOut.isNotEmpty(),
            ),
            PATIENCE,
        )
        store.keep(answer.released)
        return when (val told = answer.told) {
            is Told.Away -> told.turnedAway.let { RoundOutcome.TurnedAway(it.reason, it.message, it.retryAfterS) }
            is Told.Evaluate -> evaluate(told.work)
            is Told.Train -> {
                val work = WorkUnderWay(told.assignment, parts.clock.wallS() + told.assignment.deadlineInS)
                store.begin(work)
                train(work)
            }
        }
    }

    private suspend fun train(work: WorkUnderWay): RoundOutcome =
        try {
            store.keep(work.assignment.rule)
            attempt.send(attempt.trained(work))
        } catch (exc: GivenUp) {
            giveUp(work.assignment, exc.reason)
            RoundOutcome.Dropped(exc.reason)
        }

    private suspend fun evaluate(work: EvaluationWork): RoundOutcome =
        try {
            attempt.evaluated(work)
        } catch (exc: GivenUp) {
            RoundOutcome.Dropped(exc.reason)
        }

    private fun judged(rule: Rule, conditions: PhoneConditions = parts.sensors.read()): Ineligible? =
        Eligibility.judge(rule, conditions, parts.examples.count.toLong(), store.neededMemoryBytes())

    private fun giveUp(assignment: Assignment, why: String) = store.giveUp(
        RoundRecord(
            assignmentId = assignment.assignmentId,
            round = assignment.round,
            modelVersion = assignment.modelVersion,
            outcome = why,
            wallS = parts.clock.wallS(),
        ),
    )

    /** Whether the service itself said that it knows the device no more, and not something in between. */
    private suspend fun isRevoked(refused: Refused): Boolean {
        if (refused.status == UNAUTHORIZED && refused.code == "unknown") {
            // A streamed report's refusal comes without its words: ask again for them.
            return try {
                parts.service.status(PATIENCE)
                false
            } catch (exc: Refused) {
                exc.code in REVOKED
            } catch (_: Unreachable) {
                false
            }
        }
        return refused.code in REVOKED
    }

    private companion object {
        const val STORAGE_FULL = "storage_full"
        const val UNAUTHORIZED = 401

        // The service's words for a credential that it takes no more.
        val REVOKED = setOf("wrong_credential", "no_credential", "revoked", "left", "forgotten")

        // With back-offs that double from a quarter of a second: some seconds. The scheduler brings the app back.
        val PATIENCE = Patience(tries = 5)
    }
}
