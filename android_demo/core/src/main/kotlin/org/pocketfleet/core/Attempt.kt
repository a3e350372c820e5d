package org.pocketfleet.core

import java.net.HttpURLConnection
import kotlinx.coroutines.CancellationException

/** One piece of work, from its files to a report that counts, or to the reason why none does. */
internal class Attempt(private val parts: RoundParts) {
    private val store = parts.store
    private val files = WorkFiles(parts.service, store.downloads)

    /**
     * Download, verify, train, measure, and write the report down.
     *
     * Where the coroutine is cancelled between two steps, what was trained until then is written down if the assignment
     * takes partial work; where it is cancelled behind the last step, always. Nothing is measured for it any more.
     *
     * @throws NotNow the phone came to a network that the rule forbids; what was downloaded is kept.
     * @throws GivenUp nothing of it counts.
     * @throws CancellationException the coroutine was cancelled; the store holds a report or the work as it was.
     */
    suspend fun trained(work: WorkUnderWay): FinishedReport {
        val assignment = work.assignment
        TrainingPlan.checkAbilities(assignment, parts.abilities.programs.keys)
        val deadlineS = deadlineS(work.deadlineWallS)
        val patience = patience(deadlineS, assignment.rule)
        val bundle: VerifiedBundle
        val downloaded: Weights
        try {
            bundle = files.bundle(assignment.bundle, patience)
            downloaded = bundle.weights(files.file(assignment.weights, patience), assignment.downloadBits)
        } catch (exc: Unreachable) {
            throw GivenUp("deadline", exc)
        } catch (exc: BundleException) {
            val version = assignment.modelVersion
            throw GivenUp("the weights of version $version are not this bundle's: ${exc.message}", exc)
        }
        keep(assignment.bundle.getValue(Manifest.FILE), bundle, assignment.downloadBits, assignment.weights)
        val split = ExampleSplit(parts.examples.count)
        val plan = TrainingPlan.of(assignment, bundle, downloaded, split)
        checkRoom(plan)
        checkStart(plan, split)
        val gate = gate(bundle, assignment.rule, split, deadlineS)
        return parts.opened(bundle) { trainer -> computed(work, plan, trainer, gate) }
    }

    private suspend fun computed(work: WorkUnderWay, plan: TrainingPlan, trainer: Trainer, gate: Gate): FinishedReport {
        val means = HeldOutMeans(trainer, parts.examples, plan.split, plan.assignment.batchSize, gate)
        val before = try {
            means.of(plan.downloaded)
        } catch (exc: StoppedMeasuring) {
            throw GivenUp(exc.why.word, exc)
        }
        val trained = TrainingRun(trainer, plan, parts.examples, gate, parts.listener).run()
        val stoppedBy = trained.stoppedBy
        if (stoppedBy != null && (trained.steps == 0L || plan.assignment.partialWork == PartialWork.DISCARD)) {
            throw stoppedBy
        }
        if (stoppedBy is CancellationException) throw afterwards(stoppedBy) { finish(work, plan, trained, null, null) }
        // A phone that must stop computes nothing more: its report goes without metrics.
        val after = if (stoppedBy != null) emptyMap() else try {
            means.of(trained.weights)
        } catch (_: StoppedMeasuring) {
            emptyMap()
        } catch (exc: CancellationException) {
            throw afterwards(exc) { finish(work, plan, trained, null, null) }
        }
        val metrics = if (after.isEmpty()) null else metric(before, plan) to metric(after, plan)
        return finish(work, plan, trained, metrics?.first, metrics?.second)
    }

    /** What is thrown once [keep], which suspends nowhere, did what it could; where that fails the work begins anew. */
    private fun afterwards(cancelled: CancellationException, keep: () -> Unit): CancellationException {
        try {
            keep()
        } catch (exc: Exception) {
            cancelled.addSuppressed(exc)
        } catch (exc: OutOfMemoryError) {
            cancelled.addSuppressed(exc)
        }
        return cancelled
    }

    private fun finish(
        work: WorkUnderWay,
        plan: TrainingPlan,
        trained: Trained,
        before: Double?,
        after: Double?,
    ): FinishedReport {
        val assignment = work.assignment
        val update = Update.of(plan.downloaded, trained.weights)
        val seeds = Seeds(shared = assignment.codecSeed, own = assignment.batchSeed)
        val kept = if (plan.codec.errorFeedback) store.residual() else emptyMap()
        val said = ErrorFeedback.said(plan.codec, update, kept, seeds)
        if (!trained.trainLoss.isFinite() || said == null) throw GivenUp("not_finite")
        val report = FinishedReport(
            assignmentId = assignment.assignmentId,
            updateSha256 = "",
            deadlineWallS = work.deadlineWallS,
            facts = ReportFacts(
                numExamples = trained.numExamples,
                steps = trained.steps,
                examplesHeld = plan.split.count.toLong(),
                trainLoss = trained.trainLoss,
                metricGlobal = before,
                metricPersonalised = after,
            ),
            record = RoundRecord(
                assignmentId = assignment.assignmentId,
                round = assignment.round,
                modelVersion = assignment.modelVersion,
                outcome = "accepted",
                wallS = parts.clock.wallS(),
                steps = trained.steps,
                trainLoss = trained.trainLoss,
                metric = plan.metric,
                metricGlobal = before,
                metricPersonalised = after,
            ),
        )
        store.finish(report, said.body, trained.weights.trainable + trained.weights.buffers, said.residual)
        return checkNotNull(store.report())
    }

    /**
     * Send what is finished.
     *
     * @throws NotNow the rule asks for another network.
     * @throws Unreachable not in time; it is sent again at the next visit.
     */
    suspend fun send(report: FinishedReport): RoundOutcome {
        val update = store.update()
        val sha256 = onStorage("cannot read the update") { FileHash.of(update) }
        if (sha256 != report.updateSha256) {
            // Never sent as if it were what was trained.
            store.giveUp(report.record.copy(outcome = "damaged_report"))
            return RoundOutcome.Dropped("damaged_report")
        }
        val patience = patience(deadlineS(report.deadlineWallS), store.rule())
        patience.look()
        try {
            parts.service.report(report.assignmentId, report.facts, update, sha256, patience)
        } catch (exc: Refused) {
            if (exc.status == HttpURLConnection.HTTP_UNAUTHORIZED) throw exc
            if (exc.status == HttpURLConnection.HTTP_FORBIDDEN && exc.code != "not_yours") throw exc
            // It does not count and never will.
            store.giveUp(report.record.copy(outcome = exc.code))
            return RoundOutcome.Dropped(exc.code)
        }
        store.acknowledge()
        try {
            store.settle()
        } catch (exc: StorageException) {
            // It counts all the same; the next visit goes on with it.
            if (!exc.isFull) throw exc
        }
        return RoundOutcome.Reported(
            round = report.record.round,
            modelVersion = report.record.modelVersion,
            steps = report.facts.steps.toInt(),
            trainLoss = report.facts.trainLoss,
            metricGlobal = report.facts.metricGlobal,
            metricPersonalised = report.facts.metricPersonalised,
        )
    }

    /**
     * Measure two versions on what the device holds out, and tell the service.
     *
     * @throws GivenUp nothing of it counts; the service asks again.
     */
    suspend fun evaluated(work: EvaluationWork): RoundOutcome {
        TrainingPlan.checkProgram(work.program, parts.abilities.programs.keys)
        val deadlineS = parts.clock.elapsedS() + work.deadlineInS
        val patience = patience(deadlineS, work.rule)
        val split = ExampleSplit(parts.examples.count)
        val report = try {
            val bundle = files.bundle(work.bundle, patience)
            val versions = listOf(work.tried, work.released).map { bundle.weights(files.file(it.weights, patience)) }
            keep(work.bundle.getValue(Manifest.FILE), bundle, 0, work.tried.weights, work.released.weights)
            val gate = gate(bundle, work.rule, split, deadlineS)
            parts.opened(bundle) { trainer ->
                val batchSize = work.batchSize.coerceIn(1, bundle.manifest.maxBatch)
                val means = HeldOutMeans(trainer, parts.examples, split, batchSize, gate)
                val (tried, released) = versions.map { finite(means.of(it)[work.metric]) }
                EvaluationReport(split.heldOut.size.toLong(), tried, released)
            }
        } catch (exc: Unreachable) {
            throw GivenUp("deadline", exc)
        } catch (exc: StoppedMeasuring) {
            throw GivenUp(exc.why.word, exc)
        } catch (exc: BundleException) {
            throw GivenUp("the versions to evaluate are not this bundle's: ${exc.message}", exc)
        }
        try {
            parts.service.evaluation(work.evaluationId, report, patience)
        } catch (exc: Refused) {
            if (exc.status !in NOT_COUNTED) throw exc
            throw GivenUp(exc.code, exc)
        }
        return RoundOutcome.Evaluated(work.tried.version)
    }

    /** What the next work needs too stays, with the model that the app is to predict with. */
    private fun keep(manifest: FileEntry, bundle: VerifiedBundle, downloadBits: Int, vararg weights: FileEntry) {
        store.keepBundle(manifest, bundle.manifest.memory.trainingBytes, downloadBits)
        store.downloads.keepOnly(listOfNotNull(*weights, store.released()?.weights), manifest.sha256)
    }

    /** Until the deadline, as long as the network is one that [rule] allows. */
    private fun patience(deadlineS: Double, rule: Rule) = Patience(untilS = deadlineS) {
        if (rule.unmetered && !parts.sensors.read().unmetered) throw NotNow(Ineligible.METERED)
    }

    private fun gate(bundle: VerifiedBundle, rule: Rule, split: ExampleSplit, deadlineS: Double) =
        Gate(parts.sensors, parts.clock, rule, split.count, bundle.manifest.memory.trainingBytes, deadlineS)

    /** The rule that came with the work, and the memory that its program needs, which nobody knew before. */
    private fun checkStart(plan: TrainingPlan, split: ExampleSplit) {
        val needed = plan.bundle.manifest.memory.trainingBytes
        val found = Eligibility.judge(plan.assignment.rule, parts.sensors.read(), split.count.toLong(), needed)
        if (found != null) throw GivenUp(found.word)
    }

    /** No training whose report would find no room. */
    private fun checkRoom(plan: TrainingPlan) {
        val model = SafeTensors.size((plan.downloaded.trainable + plan.downloaded.buffers).kinds())
        // The update, the device's own model, and what the update does not say.
        val residual = if (plan.codec.errorFeedback) model else 0
        if (store.freeBytes() < plan.assignment.updateBytes + model + residual) throw GivenUp("storage_full")
    }

    /** A time of the wall by the elapsed clock, which does not jump while this goes on. */
    private fun deadlineS(deadlineWallS: Double): Double =
        parts.clock.elapsedS() + (deadlineWallS - parts.clock.wallS())

    private fun metric(means: Map<String, Double>, plan: TrainingPlan): Double? = finite(plan.metric?.let { means[it] })

    private fun finite(value: Double?): Double? = value?.takeIf { it.isFinite() }

    private companion object {
        // Refusals that mean that it does not count and never will: nothing is wrong with the device.
        val NOT_COUNTED = setOf(404, 409, 410)
    }
}
