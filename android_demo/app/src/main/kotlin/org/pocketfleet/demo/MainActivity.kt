package org.pocketfleet.demo

import android.Manifest
import android.app.Activity
import android.content.Intent
import android.os.Build
import android.os.Bundle
import android.view.View
import android.widget.Button
import android.widget.CompoundButton
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.RadioGroup
import android.widget.Spinner
import android.widget.TextView
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch

/** The one screen: it draws a [UiState] and hands taps to the [DemoModel]. Trains and measures nothing itself. */
class MainActivity : Activity() {
    private val model by lazy { (application as DemoApplication).model }
    private val words by lazy { ScreenWords(resources) }
    private var scope = CoroutineScope(SupervisorJob() + MainThread)
    private lateinit var houses: HouseFields
    private var measuring: String? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.screen)
        houses = HouseFields(find<LinearLayout>(R.id.house_fields)) { model.predictHouse(houses.features) }
        savedInstanceState?.getStringArray(FIELDS)?.let(houses::restore)
        wireTaps()
        // After the fields: of the two the one that is in use is asked about last.
        val drawn = savedInstanceState?.getFloatArray(DRAWING)?.takeIf { it.isNotEmpty() }
        drawn?.let(find<DigitView>(R.id.drawing)::restore)
        savedInstanceState?.getString(MEASURING)?.let(::tellMeasuring)
        if (savedInstanceState == null) measure(intent)
    }

    override fun onStart() {
        super.onStart()
        scope = CoroutineScope(SupervisorJob() + MainThread)
        scope.launch { model.state.collect(::draw) }
    }

    override fun onStop() {
        scope.cancel()
        super.onStop()
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        measure(intent)
    }

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState)
        outState.putStringArray(FIELDS, houses.texts)
        outState.putFloatArray(DRAWING, find<DigitView>(R.id.drawing).kept)
        measuring?.let { outState.putString(MEASURING, it) }
    }

    private fun wireTaps() {
        tap(R.id.join) { model.join(text(R.id.address), text(R.id.token)) }
        tap(R.id.leave, model::leave)
        tap(R.id.forget, model::forget)
        tap(R.id.keep_house) { model.addHouse(houses.features, houses.price, houses::clear) }
        val drawing = find<DigitView>(R.id.drawing)
        drawing.changed = { model.predictDigit(drawing.strokes) }
        tap(R.id.wipe, drawing::clear)
        tap(R.id.keep_digit) {
            val digit = find<Spinner>(R.id.label).selectedItemPosition.takeIf { it >= 0 }
            model.addDigit(drawing.strokes, digit, drawing::clear)
        }
    }

    private fun draw(state: UiState) {
        show(R.id.outside, state is UiState.Outside)
        show(R.id.member, state is UiState.Member)
        when (state) {
            UiState.Opening -> Unit
            is UiState.Outside -> draw(state)
            is UiState.Member -> draw(state)
        }
    }

    private fun draw(state: UiState.Outside) {
        draw(state.problem)
        // Only the user's tap is listened to, not Android, which restores it, nor us.
        find<RadioGroup>(R.id.tasks).apply {
            setOnCheckedChangeListener(null)
            check(if (state.task == DemoTask.DIGITS) R.id.digits_task else R.id.houses_task)
            setOnCheckedChangeListener { _, id ->
                model.choose(if (id == R.id.digits_task) DemoTask.DIGITS else DemoTask.HOUSES)
            }
        }
        find<Button>(R.id.join).apply {
            isEnabled = !state.joining
            setText(if (state.joining) R.string.joining else R.string.join)
        }
    }

    private fun draw(state: UiState.Member) {
        draw(state.problem)
        // A switch that is set by hand tells of it like one that is set by us: only the user's tap is listened to.
        find<CompoundButton>(R.id.consent).apply {
            setOnCheckedChangeListener(null)
            isChecked = state.consents
            setOnCheckedChangeListener { _, on -> consent(on) }
        }
        find<Button>(R.id.pause).apply {
            setText(if (state.paused) R.string.resume else R.string.pause)
            setOnClickListener { if (state.paused) model.resume() else model.pause() }
        }
        for (id in intArrayOf(R.id.pause, R.id.leave, R.id.forget)) find<Button>(id).isEnabled = !state.working
        find<TextView>(R.id.stage).text = words.stage(state)
        drawRounds(state)
        find<TextView>(R.id.examples).text = words.examples(state)
        find<TextView>(R.id.prediction).text = words.prediction(state.prediction)
        show(R.id.houses, state.task == DemoTask.HOUSES)
        show(R.id.digits, state.task == DemoTask.DIGITS)
    }

    private fun drawRounds(state: UiState.Member) {
        val curve = find<CurveView>(R.id.curve)
        curve.show(state.rounds)
        val lines = words.rounds(state)
        curve.contentDescription = words.curve(state)
        for ((id, line) in intArrayOf(R.id.curve_loss, R.id.curve_global, R.id.curve_personal).zip(lines)) {
            find<TextView>(id).text = line
            show(id, line.isNotEmpty())
        }
    }

    private fun draw(problem: Problem?) {
        find<TextView>(R.id.problem).text = problem?.let(words::problem).orEmpty()
        show(R.id.problem, problem != null)
    }

    private fun consent(on: Boolean) {
        // The notice while it trains needs a permission from Android 13 on; training does not depend on the answer.
        if (on && Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU) {
            requestPermissions(arrayOf(Manifest.permission.POST_NOTIFICATIONS), 0)
        }
        model.consent(on)
    }

    /** `adb shell am start -n org.pocketfleet.demo/.MainActivity -e bundle NAME [-e post yes]` measures that bundle. */
    private fun measure(intent: Intent) {
        val name = intent.getStringExtra(BenchmarkJob.BUNDLE) ?: return
        (application as DemoApplication).calendar.measure(name, post = intent.getStringExtra(BenchmarkJob.POST) != null)
        tellMeasuring(getString(R.string.measuring, name, "${getExternalFilesDir(null)}/${BenchmarkErrand.RESULT}"))
    }

    private fun tellMeasuring(text: String) {
        measuring = text
        find<TextView>(R.id.measuring).text = text
        show(R.id.measuring, true)
    }

    private fun text(id: Int): String = find<EditText>(id).text.toString()

    private fun tap(id: Int, action: () -> Unit) = find<Button>(id).setOnClickListener { action() }

    private fun show(id: Int, shown: Boolean) {
        find<View>(id).visibility = if (shown) View.VISIBLE else View.GONE
    }

    private fun <T : View> find(id: Int): T = requireViewOf(id)

    @Suppress("UNCHECKED_CAST")
    private fun <T : View> requireViewOf(id: Int): T = checkNotNull(findViewById<View>(id)) as T

    private companion object {
        const val FIELDS = "fields"
        const val DRAWING = "drawing"
        const val MEASURING = "measuring"
    }
}
