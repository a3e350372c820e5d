package org.pocketfleet.demo

/** The texts of a form as one example: numbers as people write them, in the order of the columns. */
class HouseForm(private val columns: List<String>, private val target: String) {
    /** What a form holds: an input, or which field is wrong. */
    sealed interface Read {
        class Example(val x: FloatArray, val price: Float) : Read

        data class Wrong(val field: String, val empty: Boolean) : Read
    }

    /** The features alone, for a prediction; null: a field is empty or no number. */
    fun features(texts: List<String>): FloatArray? {
        require(texts.size == columns.size) { "the form has ${columns.size} fields, got ${texts.size}" }
        val values = texts.map(::number)
        return if (values.any { it == null }) null else FloatArray(values.size) { checkNotNull(values[it]) }
    }

    /** A whole example, or the first field that is wrong. */
    fun example(texts: List<String>, price: String): Read {
        require(texts.size == columns.size) { "the form has ${columns.size} fields, got ${texts.size}" }
        val named = columns.zip(texts) + (target to price)
        val wrong = named.firstOrNull { (_, text) -> number(text) == null }
        if (wrong != null) return Read.Wrong(wrong.first, empty = wrong.second.isBlank())
        return Read.Example(FloatArray(texts.size) { checkNotNull(number(texts[it])) }, checkNotNull(number(price)))
    }

    /** A comma is a point, as in many languages; what is not finite is no number. */
    private fun number(text: String): Float? =
        text.trim().replace(',', '.').takeIf(PLAIN::matches)?.toFloatOrNull()?.takeIf(Float::isFinite)

    private companion object {
        // Kotlin's own reader takes "NaN", "0x1p3" and "1f" too, which nobody means to type.
        val PLAIN = Regex("""[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?""")
    }
}
