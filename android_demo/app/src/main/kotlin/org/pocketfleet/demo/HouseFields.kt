package org.pocketfleet.demo

import android.text.Editable
import android.text.InputType
import android.text.TextWatcher
import android.view.View
import android.view.ViewGroup
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.TextView

/** The fields of a house in [box], a label and a field for each column and for the price; made of the resources. */
class HouseFields(private val box: LinearLayout, private val changed: () -> Unit) {
    private val fields: List<EditText>

    init {
        val resources = box.resources
        val labels = resources.getStringArray(R.array.house_columns).toList() + resources.getString(R.string.price)
        fields = labels.map(::field)
        // Only once all are there.
        val watcher = object : TextWatcher {
            override fun beforeTextChanged(text: CharSequence, start: Int, count: Int, after: Int) = Unit

            override fun onTextChanged(text: CharSequence, start: Int, before: Int, count: Int) = Unit

            override fun afterTextChanged(text: Editable) = changed()
        }
        fields.dropLast(1).forEach { it.addTextChangedListener(watcher) }
    }

    /** What was typed in, the price last. */
    val texts: Array<String> get() = fields.map { it.text.toString() }.toTypedArray()

    /** Without the price. */
    val features: List<String> get() = texts.dropLast(1)

    val price: String get() = texts.last()

    /** What was typed in before the screen was turned. */
    fun restore(texts: Array<String>) = fields.zip(texts).forEach { (field, text) -> field.setText(text) }

    /** Empty them for the next house. */
    fun clear() = fields.forEach { it.setText("") }

    private fun field(label: String): EditText {
        val text = TextView(box.context).apply { this.text = label }
        val field = EditText(box.context).apply {
            id = View.generateViewId()
            inputType = InputType.TYPE_CLASS_NUMBER or
                InputType.TYPE_NUMBER_FLAG_DECIMAL or
                InputType.TYPE_NUMBER_FLAG_SIGNED
            minimumHeight = (TOUCH_DP * resources.displayMetrics.density).toInt()
            // The screen keeps what was typed; ids are new each time.
            isSaveEnabled = false
        }
        text.labelFor = field.id
        box.addView(text, wide())
        box.addView(field, wide())
        return field
    }

    private fun wide() =
        LinearLayout.LayoutParams(ViewGroup.LayoutParams.MATCH_PARENT, ViewGroup.LayoutParams.WRAP_CONTENT)

    private companion object {
        // The least that a finger hits, by Android's guidelines for accessibility.
        const val TOUCH_DP = 48
    }
}
