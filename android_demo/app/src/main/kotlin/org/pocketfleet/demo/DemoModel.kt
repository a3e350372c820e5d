package org.pocketfleet.demo

import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.launch
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import kotlinx.coroutines.withContext
import org.pocketfleet.core.DeviceStore
import org.pocketfleet.core.ExampleSplit
import org.pocketfleet.core.PocketfleetException
import org.pocketfleet.core.StorageException
import java.io.File
import java.io.IOException
import kotlin.math.exp

/** What the phone keeps on its disk, one file a noun. */
class Keepsakes(val settings: DemoSettings, private val folder: File, val device: DeviceStore) {
    private val examples = DemoTask.entries.associateWith { OwnExamples(File(folder, "examples-${it.word}.bin"), it) }

    /** The user's examples of one task. */
    fun examples(task: DemoTask): OwnExamples = examples.getValue(task)

    /** Delete everything that was learnt from the user, and the choice to take part. */
    fun forget() {
        examples.values.forEach(OwnExamples::clear)
        device.forget()
        settings.change(consents = false, paused = false)
    }
}

/**
 * The one screen's state, and what each tap does. Trains nothing: it only asks the [calendar] for jobs.
 *
 * @param scope of the screen's thread: every change of [state] happens there.
 * @param io where files, the service and the model are waited for.
 * @param stage what training does, told by the jobs.
 * @param visiting held by whoever visits the service.
 */
class DemoModel(
    private val scope: CoroutineScope,
    private val io: CoroutineDispatcher,
    private val membership: Membership,
    private val keepsakes: Keepsakes,
    private val calendar: Calendar,
    private val predictor: Predictor,
    private val form: HouseForm,
    private val stage: StateFlow<Stage>,
    private val visiting: Mutex,
) {
    private val shown = MutableStateFlow<UiState>(UiState.Opening)
    private var predicting: Job? = null

    /** What the screen shows. */
    val state: StateFlow<UiState> = shown.asStateFlow()

    init {
        scope.launch {
            withContext(io) {
                val settings = keepsakes.settings
                if (membership.joined && settings.consents && !settings.paused) calendar.ensure()
            }
            stage.collect { refresh() }
        }
    }

    /** What the phone collects from now on. */
    fun choose(task: DemoTask) = act { keepsakes.settings.change(task = task) }

    /** Enrol. The user has not agreed to train by that. */
    fun join(address: String, token: String) {
        val problem = when {
            !ADDRESS.matches(address.trim()) -> Problem(Problem.Kind.ADDRESS, address.trim())
            token.isBlank() -> Problem(Problem.Kind.TOKEN)
            else -> null
        }
        val before = shown.value as? UiState.Outside ?: return
        if (before.joining) return
        shown.value = before.copy(joining = problem == null, problem = problem)
        if (problem == null) act { membership.join(address.trim().trimEnd('/'), token.trim()) }
    }

    /** Whether this phone may train. */
    fun consent(given: Boolean) = act {
        keepsakes.settings.change(consents = given)
        if (given && !keepsakes.settings.paused) calendar.come(0.0) else calendar.cancel()
    }

    /** Rest: no job comes any more. The phone rests also where the service cannot be told. */
    fun pause() = tap {
        keepsakes.settings.change(paused = true)
        calendar.cancel()
        membership.pause()
    }

    /** Rest no more. */
    fun resume() = tap {
        membership.resume()
        keepsakes.settings.change(paused = false)
        if (keepsakes.settings.consents) calendar.come(0.0)
    }

    /** Take part no more; examples and the phone's own model stay here. */
    fun leave() = tap {
        keepsakes.settings.change(consents = false)
        calendar.cancel()
        visiting.withLock { membership.leave() }
        keepsakes.settings.change(paused = false)
    }

    /** Take part no more, and delete everything, on the service and here. */
    fun forget() = tap {
        keepsakes.settings.change(consents = false)
        calendar.cancel()
        // The step under way ends first: nothing of it may be written behind this.
        visiting.withLock {
            membership.forget()
            keepsakes.forget()
        }
    }

    /** Keep a house with its price. */
    fun addHouse(texts: List<String>, price: String, kept: () -> Unit = {}) {
        when (val read = form.example(texts, price)) {
            is HouseForm.Read.Example -> act(kept) { keepsakes.examples(DemoTask.HOUSES).add(read.x, read.price) }
            is HouseForm.Read.Wrong -> show(
                Problem(if (read.empty) Problem.Kind.FIELD_EMPTY else Problem.Kind.FIELD_NO_NUMBER, read.field),
            )
        }
    }

    /** Keep a drawing as the digit that it is; [digit] null: the user did not say. */
    fun addDigit(strokes: List<List<Touch>>, digit: Int?, kept: () -> Unit = {}) {
        val x = DigitRaster.pixels(strokes)
        when {
            x == null -> show(Problem(Problem.Kind.NOTHING_DRAWN))
            digit == null -> show(Problem(Problem.Kind.NO_LABEL))
            else -> act(kept) { keepsakes.examples(DemoTask.DIGITS).add(x, digit.toFloat()) }
        }
    }

    /** What the model says of the form as it stands; nothing while a field is empty. */
    fun predictHouse(texts: List<String>) = predict(form.features(texts)) { Prediction.Price(it[0]) }

    /** What the model says of the drawing as it stands. */
    fun predictDigit(strokes: List<List<Touch>>) = predict(DigitRaster.pixels(strokes), ::likeliest)

    private fun predict(x: FloatArray?, told: (FloatArray) -> Prediction) {
        // Only the newest input matters: a finger draws faster than a slow phone predicts.
        predicting?.cancel()
        if (x == null) {
            member { it.copy(prediction = null) }
            return
        }
        predicting = scope.launch {
            try {
                val output = withContext(io) { predictor.predict(x) }
                member { it.copy(prediction = output?.let(told) ?: Prediction.NoModel) }
            } catch (exception: CancellationException) {
                throw exception
            } catch (exception: IOException) {
                show(Problem(Problem.Kind.PREDICTION, exception.message.orEmpty()))
            } catch (exception: PocketfleetException) {
                show(Problem(Problem.Kind.PREDICTION, exception.message.orEmpty()))
            } catch (exception: RuntimeException) {
                // Such as a form of one task under the programs of another.
                show(Problem(Problem.Kind.PREDICTION, exception.message.orEmpty()))
            }
        }
    }

    /** [act], of which only one is under way. */
    private fun tap(work: suspend () -> Unit) {
        val before = shown.value as? UiState.Member ?: return
        if (before.working) return
        shown.value = before.copy(working = true, problem = null)
        act(work = work)
    }

    /** Do it off the screen's thread and show what came of it; [done] is for where it went well. */
    private fun act(done: () -> Unit = {}, work: suspend () -> Unit) {
        scope.launch {
            val problem = try {
                withContext(io) { work() }
                done()
                null
            } catch (exception: MembershipException) {
                exception.problem
            } catch (exception: StorageException) {
                Problem(Problem.Kind.STORAGE, exception.message.orEmpty())
            } catch (exception: IOException) {
                Problem(Problem.Kind.STORAGE, exception.message.orEmpty())
            }
            refresh(problem)
        }
    }

    private suspend fun refresh(problem: Problem? = null) {
        val before = shown.value as? UiState.Member
        val found = withContext(io) { found() }
        shown.value = when (found) {
            is UiState.Outside -> found.copy(problem = problem)
            // What the screen asked for meanwhile is newer than what was read.
            is UiState.Member -> found.copy(
                prediction = (shown.value as? UiState.Member)?.prediction?.takeIf { before?.task == found.task },
                problem = problem,
            )
            UiState.Opening -> found
        }
    }

    private fun found(): UiState {
        val settings = keepsakes.settings
        if (!membership.joined) return UiState.Outside(settings.task)
        val split = ExampleSplit(keepsakes.examples(settings.task).count)
        return UiState.Member(
            task = settings.task,
            consents = settings.consents,
            paused = settings.paused,
            stage = stage.value,
            rounds = keepsakes.device.rounds().mapNotNull(RoundPoint::of),
            examples = split.count,
            heldOut = split.heldOut.size,
        )
    }

    private fun show(problem: Problem) = member { it.copy(problem = problem) }

    private fun member(change: (UiState.Member) -> UiState.Member) {
        shown.value = (shown.value as? UiState.Member)?.let(change) ?: return
    }

    private companion object {
        // The service prints it: http://host:8080/v1/populations/main.
        val ADDRESS = Regex("""https?://[^/\s]+/v1/populations/[^/\s]+/?""")

        fun likeliest(scores: FloatArray): Prediction {
            val digit = scores.indices.maxBy { scores[it] }
            // Softmax, less the largest so that nothing overflows.
            val sum = scores.sumOf { exp((it - scores[digit]).toDouble()) }
            return Prediction.Digit(digit, (1.0 / sum).toFloat())
        }
    }
}
