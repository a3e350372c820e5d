package org.pocketfleet.demo

import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.Runnable
import kotlinx.coroutines.cancel
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.sync.Mutex
import org.junit.After
import org.junit.Rule
import org.junit.rules.TemporaryFolder
import org.pocketfleet.core.Credential
import org.pocketfleet.core.DeviceStore
import java.io.File
import kotlin.coroutines.CoroutineContext
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertIs
import kotlin.test.assertNull
import kotlin.test.assertTrue

class DemoModelTest {
    @get:Rule
    val folder = TemporaryFolder()

    private inner class Service : Membership {
        override var joined: Boolean
            get() = keepsakes.device.credential() != null
            set(value) = keepsakes.device.run {
                if (value) keep(Credential("https://host", "d1", "secret")) else dropCredential()
            }
        val asked = mutableListOf<String>()
        var refusal: Problem? = null
        var answers = CompletableDeferred(Unit)

        override suspend fun join(address: String, token: String) = answer("join $address $token") { joined = true }

        override suspend fun pause() = answer("pause") {}

        override suspend fun resume() = answer("resume") {}

        override suspend fun leave() = answer("leave") { joined = false }

        override suspend fun forget() = answer("forget") {}

        private suspend fun answer(what: String, done: () -> Unit) {
            asked += what
            answers.await()
            refusal?.let { throw MembershipException(it) }
            done()
        }
    }

    private class Jobs : Calendar {
        var planned: Double? = null

        override fun come(afterS: Double) {
            planned = afterS
        }

        override fun ensure() {
            planned = planned ?: 0.0
        }

        override fun cancel() {
            planned = null
        }
    }

    private val service = Service()
    private val jobs = Jobs()
    private val stage = MutableStateFlow<Stage>(Stage.Resting)
    private val visiting = Mutex()
    private val scope = CoroutineScope(Dispatchers.Unconfined + Job())
    private var output: FloatArray? = floatArrayOf(21.5f)
    private var failure: Throwable? = null
    private val keepsakes by lazy {
        val settings = DemoSettings(File(folder.root, "settings.json"))
        Keepsakes(settings, folder.root, DeviceStore(File(folder.root, "device")))
    }

    private fun model(io: CoroutineDispatcher = Dispatchers.Unconfined) = DemoModel(
        scope = scope,
        io = io,
        membership = service,
        keepsakes = keepsakes,
        calendar = jobs,
        predictor = { failure?.let { throw it } ?: output },
        form = HouseForm(List(13) { "column $it" }, "price"),
        stage = stage,
        visiting = visiting,
    )

    /** A slow phone: does what it was asked for when told to, the newest first. */
    private class Slow : CoroutineDispatcher() {
        private val waiting = ArrayDeque<Runnable>()

        override fun dispatch(context: CoroutineContext, block: Runnable) {
            waiting += block
        }

        fun work() {
            while (waiting.isNotEmpty()) waiting.removeLast().run()
        }
    }

    private fun member(): DemoModel {
        service.joined = true
        return model()
    }

    private val DemoModel.inside get() = assertIs<UiState.Member>(state.value)
    private val DemoModel.outside get() = assertIs<UiState.Outside>(state.value)
    private val texts = List(13) { "$it" }

    @After
    fun end() = scope.cancel()

    @Test
    fun `to enrol is not to agree`() {
        val model = model()
        assertEquals(DemoTask.HOUSES, model.outside.task)
        model.join(" https://host/v1/populations/main/ ", " token ")
        assertEquals(listOf("join https://host/v1/populations/main token"), service.asked)
        assertFalse(model.inside.consents)
        assertNull(jobs.planned)
    }

    @Test
    fun `an address or token that cannot be right is told before anybody is asked`() {
        val model = model()
        val wrong = listOf("", "host", "ftp://host/v1/populations/main", "https://host", "https://host/v1/populations/")
        for (address in wrong) {
            model.join(address, "token")
            assertEquals(Problem.Kind.ADDRESS, model.outside.problem?.kind, address)
        }
        model.join("https://host/v1/populations/main", " ")
        assertEquals(Problem(Problem.Kind.TOKEN), model.outside.problem)
        assertEquals(emptyList(), service.asked)
    }

    @Test
    fun `one tap enrols once`() {
        service.answers = CompletableDeferred()
        val model = model()
        repeat(3) { model.join("https://host/v1/populations/main", "token") }
        assertTrue(model.outside.joining)
        service.answers.complete(Unit)
        assertEquals(1, service.asked.size)
        assertIs<UiState.Member>(model.state.value)
    }

    @Test
    fun `a refused token leaves one outside, with the reason`() {
        service.refusal = Problem(Problem.Kind.REFUSED, "the token was used before")
        val model = model()
        model.join("https://host/v1/populations/main", "token")
        assertEquals(service.refusal, model.outside.problem)
        assertFalse(model.outside.joining)
    }

    @Test
    fun `training is off until it is turned on, and off again`() {
        val model = member()
        assertFalse(model.inside.consents)
        assertNull(jobs.planned)
        model.consent(true)
        assertTrue(model.inside.consents)
        assertEquals(0.0, jobs.planned)
        model.consent(false)
        assertFalse(model.inside.consents)
        assertNull(jobs.planned)
    }

    @Test
    fun `a phone that was restarted plans anew, if its user agreed and it does not rest`() {
        member()
        assertNull(jobs.planned)
        keepsakes.settings.change(consents = true, paused = true)
        member()
        assertNull(jobs.planned)
        keepsakes.settings.change(paused = false)
        member()
        assertEquals(0.0, jobs.planned)
    }

    @Test
    fun `pause reaches the service, and rests also where it does not`() {
        val model = member()
        model.consent(true)
        service.refusal = Problem(Problem.Kind.NOT_REACHED, "no route")
        model.pause()
        assertEquals(listOf("pause"), service.asked)
        assertTrue(model.inside.paused)
        assertEquals(service.refusal, model.inside.problem)
        assertNull(jobs.planned)
        model.consent(true)
        assertNull(jobs.planned)
        service.refusal = null
        model.resume()
        assertEquals(listOf("pause", "resume"), service.asked)
        assertFalse(model.inside.paused)
        assertEquals(0.0, jobs.planned)
    }

    @Test
    fun `leave reaches the service and keeps what is the user's`() {
        val model = member()
        model.consent(true)
        model.addHouse(texts, "20")
        model.leave()
        assertEquals(listOf("leave"), service.asked)
        assertIs<UiState.Outside>(model.state.value)
        assertNull(jobs.planned)
        assertFalse(keepsakes.settings.consents)
        assertEquals(1, keepsakes.examples(DemoTask.HOUSES).count)
    }

    @Test
    fun `forget me reaches the service and leaves nothing here`() {
        val model = member()
        model.consent(true)
        model.addHouse(texts, "20")
        model.addDigit(listOf(listOf(Touch(1f, 1f))), 3)
        model.forget()
        assertEquals(listOf("forget"), service.asked)
        assertIs<UiState.Outside>(model.state.value)
        for (task in DemoTask.entries) assertEquals(0, keepsakes.examples(task).count)
        assertFalse(File(folder.root, "device").exists())
        assertNull(jobs.planned)
    }

    @Test
    fun `a service that is not reached forgets nothing, and so does the phone, but it trains no more`() {
        val model = member()
        model.consent(true)
        model.addHouse(texts, "20")
        service.refusal = Problem(Problem.Kind.NOT_REACHED, "no route")
        model.forget()
        assertEquals(service.refusal, model.inside.problem)
        assertFalse(model.inside.consents)
        assertNull(jobs.planned)
        assertEquals(1, keepsakes.examples(DemoTask.HOUSES).count)
    }

    @Test
    fun `nothing is forgotten under a visit's hands`() = runBlocking {
        val model = member()
        visiting.lock()
        model.forget()
        assertTrue(model.inside.working)
        assertEquals(emptyList(), service.asked)
        visiting.unlock()
        assertIs<UiState.Outside>(model.state.value)
        Unit
    }

    @Test
    fun `a second tap while the first is under way does nothing`() {
        service.answers = CompletableDeferred()
        val model = member()
        model.pause()
        model.leave()
        model.forget()
        assertTrue(model.inside.working)
        service.answers.complete(Unit)
        assertEquals(listOf("pause"), service.asked)
        assertFalse(model.inside.working)
    }

    @Test
    fun `examples are counted, every fifth held out`() {
        val model = member()
        var kept = 0
        repeat(5) { model.addHouse(texts, "2$it") { kept += 1 } }
        assertEquals(5, kept)
        assertEquals(5, model.inside.examples)
        assertEquals(1, model.inside.heldOut)
    }

    @Test
    fun `what is no example is told and not kept`() {
        val model = member()
        model.addHouse(texts, "cheap")
        assertEquals(Problem(Problem.Kind.FIELD_NO_NUMBER, "price"), model.inside.problem)
        model.addHouse(listOf("") + texts.drop(1), "20")
        assertEquals(Problem(Problem.Kind.FIELD_EMPTY, "column 0"), model.inside.problem)
        model.addDigit(emptyList(), 3)
        assertEquals(Problem(Problem.Kind.NOTHING_DRAWN), model.inside.problem)
        model.addDigit(listOf(listOf(Touch(1f, 1f))), null)
        assertEquals(Problem(Problem.Kind.NO_LABEL), model.inside.problem)
        for (task in DemoTask.entries) assertEquals(0, keepsakes.examples(task).count)
    }

    @Test
    fun `the model is asked while one types, once the form is full`() {
        val model = member()
        model.predictHouse(texts)
        assertEquals(Prediction.Price(21.5f), model.inside.prediction)
        model.predictHouse(listOf("") + texts.drop(1))
        assertNull(model.inside.prediction)
        output = null
        model.predictHouse(texts)
        assertEquals(Prediction.NoModel, model.inside.prediction)
    }

    @Test
    fun `a model that cannot take the input is told, and the app goes on`() {
        service.joined = true
        failure = IllegalArgumentException("predict takes x [batch, 1, 28, 28]")
        val model = model()
        model.predictHouse(texts)
        assertEquals(Problem(Problem.Kind.PREDICTION, "predict takes x [batch, 1, 28, 28]"), model.inside.problem)
        failure = null
        model.predictHouse(texts)
        assertEquals(Prediction.Price(21.5f), model.inside.prediction)
    }

    @Test
    fun `the likeliest digit comes with its share`() {
        val model = member()
        // exp(2) / (exp(2) + 9) = 7.389 / 16.389.
        output = FloatArray(10) { if (it == 4) 1002f else 1000f }
        model.predictDigit(listOf(listOf(Touch(1f, 1f))))
        val found = assertIs<Prediction.Digit>(model.inside.prediction)
        assertEquals(4, found.digit)
        assertEquals(0.4509f, found.ratio, 1e-4f)
    }

    @Test
    fun `what a job does is shown, also that the service knows the phone no more`() {
        val model = member()
        model.consent(true)
        stage.value = Stage.Working
        assertEquals(Stage.Working, model.inside.stage)
        service.joined = false
        stage.value = Stage.Ended(Ending.REVOKED)
        assertIs<UiState.Outside>(model.state.value)
    }

    @Test
    fun `a phone that was revoked says so, and agrees anew with the next service`() {
        val model = member()
        model.consent(true)
        model.pause()
        service.joined = false
        stage.value = Stage.Ended(Ending.REVOKED)
        assertEquals(Problem(Problem.Kind.REVOKED), model.outside.problem)
        service.answers = CompletableDeferred()
        model.join("https://host/v1/populations/main", "token")
        assertFalse(keepsakes.settings.consents)
        service.answers.complete(Unit)
        assertFalse(model.inside.consents)
        assertFalse(model.inside.paused)
        assertEquals(Stage.Resting, model.inside.stage)
        assertNull(model.inside.problem)
    }

    @Test
    fun `forgetting that broke off can be asked for again`() {
        val model = member()
        model.addHouse(texts, "20")
        val stuck = File(folder.root, "examples-${DemoTask.DIGITS.word}.bin/inner").apply { mkdirs() }
        model.forget()
        assertEquals(Problem.Kind.STORAGE, model.inside.problem?.kind)
        stuck.parentFile.deleteRecursively()
        model.forget()
        assertEquals(listOf("forget", "forget"), service.asked)
        assertIs<UiState.Outside>(model.state.value)
        assertFalse(File(folder.root, "device").exists())
    }

    @Test
    fun `files that cannot be read are told, and a new credential takes their place`() {
        service.joined = true
        File(folder.root, "device/credential.json").writeText("{")
        val model = model()
        assertEquals(Problem.Kind.UNREADABLE, model.outside.problem?.kind)
        stage.value = Stage.Working
        assertEquals(Problem.Kind.UNREADABLE, model.outside.problem?.kind)
        model.join("https://host/v1/populations/main", "token")
        assertNull(model.inside.problem)
        File(folder.root, "device/credential.json").writeText("{")
        model.consent(true)
        assertEquals(Problem.Kind.UNREADABLE, model.inside.problem?.kind)
    }

    @Test
    fun `a library that the phone cannot load is told, and the app goes on`() {
        val model = member()
        failure = UnsatisfiedLinkError("libexecutorch.so")
        model.predictHouse(texts)
        assertEquals(Problem.Kind.PREDICTION, model.inside.problem?.kind)
        assertTrue("libexecutorch.so" in model.inside.problem?.detail.orEmpty())
    }

    @Test
    fun `of two taps the later one holds`() {
        service.joined = true
        val slow = Slow()
        val model = model(slow)
        slow.work()
        model.consent(true)
        model.consent(false)
        slow.work()
        assertFalse(model.inside.consents)
        assertNull(jobs.planned)
    }

    @Test
    fun `a drawing is looked at off the screen's thread`() {
        service.joined = true
        val slow = Slow()
        val model = model(slow)
        slow.work()
        var looked = false
        val stroke = object : AbstractList<Touch>() {
            override val size = 1

            override fun get(index: Int) = Touch(1f, 1f).also { looked = true }
        }
        output = FloatArray(10)
        model.predictDigit(listOf(stroke))
        model.addDigit(listOf(stroke), 3)
        assertFalse(looked)
        slow.work()
        assertIs<Prediction.Digit>(model.inside.prediction)
        assertEquals(1, keepsakes.examples(DemoTask.DIGITS).count)
    }

    @Test
    fun `what a job does meanwhile takes nothing from a tap under way`() {
        service.answers = CompletableDeferred()
        val model = model()
        model.join("https://host/v1/populations/main", "token")
        stage.value = Stage.Working
        model.choose(DemoTask.DIGITS)
        assertTrue(model.outside.joining)
        assertEquals(DemoTask.DIGITS, model.outside.task)
        service.answers.complete(Unit)
        service.answers = CompletableDeferred()
        model.pause()
        stage.value = Stage.Resting
        model.consent(true)
        assertTrue(model.inside.working)
        service.refusal = Problem(Problem.Kind.NOT_REACHED, "no route")
        service.answers.complete(Unit)
        assertFalse(model.inside.working)
        stage.value = Stage.Working
        assertEquals(service.refusal, model.inside.problem)
    }
}
