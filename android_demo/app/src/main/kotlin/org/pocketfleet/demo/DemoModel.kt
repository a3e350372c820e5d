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
import org.pocketfleet.core.ExampleSplit
import org.pocketfleet.core.PocketfleetException
import org.pocketfleet.core.StorageException
import java.io.IOException
import kotlin.math.exp

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

    // Whether the service was asked for something that it has not answered yet.
    private var asking = false

    // Held for each change of what the phone keeps: the later tap is the one that holds.
    private val changes = Mutex()

    /** What the screen shows. */
    val state: StateFlow<UiState> = shown.asStateFlow()

    init {
        act {
            change {
                val settings = keepsakes.settings
                if (membership.joined && settings.consents && !settings.paused) calendar.ensure()
            }
        }
        scope.launch {
            stage.collect { now ->
                refresh { before -> if (now == REVOKED) Problem(Problem.Kind.REVOKED) else before }
            }
        }
    }

    /** What the phone collects from now on. */
    fun choose(task: DemoTask) {
        if ((shown.value as? UiState.Outside)?.task != task) act { change { keepsakes.settings.change(task = task) } }
    }

    /** Enrol. The user has not agreed to train by that, whatever was agreed on with another service. */
    fun join(address: String, token: String) {
        val problem = when {
            !ADDRESS.matches(address.trim()) -> Problem(Problem.Kind.ADDRESS, address.trim())
            token.isBlank() -> Problem(Problem.Kind.TOKEN)
            else -> null
        }
        val before = shown.value as? UiState.Outside ?: return
        if (asking) return
        shown.value = before.copy(joining = problem == null, problem = problem)
        if (problem != null) return
        ask {
            change {
                keepsakes.settings.change(consents = false, paused = false)
                calendar.cancel()
            }
            withContext(io) { membership.join(address.trim().trimEnd('/'), token.trim()) }
        }
    }

    /** Whether this phone may train. */
    fun consent(given: Boolean) = act {
        change {
            keepsakes.settings.change(consents = given)
            if (given && !keepsakes.settings.paused) calendar.come(0.0) else calendar.cancel()
        }
    }

    /** Rest: no job comes any more. The phone rests also where the service cannot be told. */
    fun pause() = tap {
        change {
            keepsakes.settings.change(paused = true)
            calendar.cancel()
        }
        withContext(io) { membership.pause() }
    }

    /** Rest no more. */
    fun resume() = tap {
        withContext(io) { membership.resume() }
        change {
            keepsakes.settings.change(paused = false)
            if (keepsakes.settings.consents) calendar.come(0.0)
        }
    }

    /** Take part no more; examples and the phone's own model stay here. */
    fun leave() = tap {
        trainNoMore()
        visiting.withLock { withContext(io) { membership.leave() } }
        change { keepsakes.settings.change(paused = false) }
    }

    /** Take part no more, and delete everything, on the service and here. */
    fun forget() = tap {
        trainNoMore()
        // The step under way ends first: nothing of it may be written behind this.
        visiting.withLock {
            withContext(io) { membership.forget() }
            change { keepsakes.forget() }
        }
    }

    private suspend fun trainNoMore() = change {
        keepsakes.settings.change(consents = false)
        calendar.cancel()
    }

    /** Keep a house with its price. */
    fun addHouse(texts: List<String>, price: String, kept: () -> Unit = {}) {
        when (val read = form.example(texts, price)) {
            is HouseForm.Read.Example ->
                act(kept) { change { keepsakes.examples(DemoTask.HOUSES).add(read.x, read.price) } }
            is HouseForm.Read.Wrong -> show(
                Problem(if (read.empty) Problem.Kind.FIELD_EMPTY else Problem.Kind.FIELD_NO_NUMBER, read.field),
            )
        }
    }

    /** Keep a drawing as the digit that it is; [digit] null: the user did not say. */
    fun addDigit(strokes: List<List<Touch>>, digit: Int?, kept: () -> Unit = {}) {
        when {
            strokes.all { it.isEmpty() } -> show(Problem(Problem.Kind.NOTHING_DRAWN))
            digit == null -> show(Problem(Problem.Kind.NO_LABEL))
            else -> act(kept) {
                change {
                    val x = checkNotNull(DigitRaster.pixels(strokes)) { "a drawing with a touch has pixels" }
                    keepsakes.examples(DemoTask.DIGITS).add(x, digit.toFloat())
                }
            }
        }
    }

    /** What the model says of the form as it stands; nothing while a field is empty. */
    fun predictHouse(texts: List<String>) = predict({ form.features(texts) }) { Prediction.Price(it[0]) }

    /** What the model says of the drawing as it stands. */
    fun predictDigit(strokes: List<List<Touch>>) = predict({ DigitRaster.pixels(strokes) }, ::likeliest)

    private fun predict(input: () -> FloatArray?, told: (FloatArray) -> Prediction) {
        // Only the newest input matters: a finger draws faster than a slow phone predicts.
        predicting?.cancel()
        predicting = scope.launch {
            val said = try {
                withContext(io) { input()?.let { x -> predictor.predict(x)?.let(told) ?: Prediction.NoModel } }
            } catch (exception: CancellationException) {
                throw exception
            } catch (exception: Exception) {
                // Also such as a form of one task under the programs of another.
                return@launch show(Problem(Problem.Kind.PREDICTION, exception.message.orEmpty()))
            } catch (error: LinkageError) {
                // Native libraries that this phone cannot load.
                return@launch show(Problem(Problem.Kind.PREDICTION, "$error"))
            }
            member { it.copy(prediction = said) }
        }
    }

    /** [ask] as a member. */
    private fun tap(work: suspend () -> Unit) {
        val before = shown.value as? UiState.Member ?: return
        if (asking) return
        shown.value = before.copy(working = true, problem = null)
        ask(work)
    }

    /** [act], of which only one is under way: the service is asked. */
    private fun ask(work: suspend () -> Unit) {
        asking = true
        act(over = { asking = false }, work = work)
    }

    /** Do it and show what came of it; [done] is for where it went well, [over] in any case. */
    private fun act(done: () -> Unit = {}, over: () -> Unit = {}, work: suspend () -> Unit) {
        val before = problem
        scope.launch {
            val found = problemOf {
                work()
                done()
            }
            over()
            // What went well takes away what was told before it, not what another tap has told meanwhile.
            refresh { now -> found ?: now.takeIf { it !== before } }
        }
    }

    /** On the phone's storage: off the screen's thread, one after the other in the order of the taps. */
    private suspend fun change(work: suspend () -> Unit) = changes.withLock { withContext(io) { work() } }

    /** Null: it went well. */
    private suspend fun problemOf(work: suspend () -> Unit): Problem? = try {
        work()
        null
    } catch (exception: MembershipException) {
        exception.problem
    } catch (exception: IOException) {
        Problem(Problem.Kind.STORAGE, exception.message.orEmpty())
    } catch (exception: StorageException) {
        Problem(Problem.Kind.STORAGE, exception.message.orEmpty())
    } catch (exception: PocketfleetException) {
        Problem(Problem.Kind.UNREADABLE, exception.message.orEmpty())
    }

    /** Show what the phone keeps; [told] says which problem, from the one that is shown. */
    private suspend fun refresh(told: (Problem?) -> Problem?) {
        val before = shown.value as? UiState.Member
        var found: UiState? = null
        val unreadable = problemOf { change { found = found() } }
        // What the screen asked for meanwhile is newer than what was read.
        val now = found ?: shown.value
        val problem = unreadable ?: told(problem)
        shown.value = when (now) {
            // There is nothing else to be done about what cannot be read but to begin anew.
            UiState.Opening -> UiState.Outside(keepsakes.settings.task, asking, problem)
            is UiState.Outside -> now.copy(joining = asking, problem = problem)
            is UiState.Member -> now.copy(
                prediction = (shown.value as? UiState.Member)?.prediction?.takeIf { before?.task == now.task },
                working = asking,
                problem = problem,
            )
        }
    }

    /** What is shown of it. */
    private val problem: Problem?
        get() = when (val now = shown.value) {
            UiState.Opening -> null
            is UiState.Outside -> now.problem
            is UiState.Member -> now.problem
        }

    private fun found(): UiState {
        val settings = keepsakes.settings
        if (!membership.joined) return UiState.Outside(settings.task)
        val split = ExampleSplit(keepsakes.examples(settings.task).count)
        return UiState.Member(
            task = settings.task,
            consents = settings.consents,
            paused = settings.paused,
            // Of an earlier membership: this one is none that was revoked.
            stage = stage.value.takeIf { it != REVOKED } ?: Stage.Resting,
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
        val REVOKED = Stage.Ended(Ending.REVOKED)

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
