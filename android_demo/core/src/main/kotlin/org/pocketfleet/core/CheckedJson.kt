package org.pocketfleet.core

import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import org.json.JSONArray
import org.json.JSONException
import org.json.JSONObject

/**
 * A JSON object of a peer's, read field by field.
 *
 * Every reader throws a [FormatException] that names the field's path, what is wanted there and what came. Fields that
 * nobody asks for are not looked at.
 */
class CheckedJson private constructor(private val json: JSONObject, private val path: String) {
    /** Names of the fields, in no order. */
    val names: Set<String> get() = json.keys().asSequence().map { it.toString() }.toSet()

    /** Whether the field is there and not null. */
    fun has(name: String): Boolean = !json.isNull(name)

    fun text(name: String): String = field<String>(name, "a text")

    fun flag(name: String): Boolean = field<Boolean>(name, "true or false")

    /** A whole number within [range]; 1.0 is none. */
    fun whole(name: String, range: LongRange = 0..Long.MAX_VALUE): Long =
        wholeOf(json.opt(name), range) ?: wrong(name, "a whole number from ${range.first} to ${range.last}")

    /** A finite number, whole or not. */
    fun number(name: String): Double =
        (json.opt(name) as? Number)?.toDouble()?.takeIf { it.isFinite() } ?: wrong(name, "a finite number")

    /** Whatever is there, as `org.json` holds it. */
    fun any(name: String): Any = field<Any>(name, "a value")

    fun part(name: String): CheckedJson = CheckedJson(field<JSONObject>(name, "an object"), inside(name))

    /** The objects in an array. */
    fun parts(name: String): List<CheckedJson> = items(name).mapIndexed { index, item ->
        CheckedJson(item as? JSONObject ?: wrong("$name.$index", "an object", item), inside("$name.$index"))
    }

    /** What an array holds: texts, numbers, booleans, objects of `org.json`. */
    fun items(name: String): List<Any> =
        field<JSONArray>(name, "an array").let { array -> List(array.length(), array::get) }

    /** A message about a field, as of one that could not be read. */
    fun wrong(name: String, wanted: String, came: Any? = json.opt(name)): Nothing {
        val told = when (came) {
            null -> "nothing"
            is String -> JSONObject.quote(came)
            else -> came.toString()
        }
        throw FormatException("${inside(name)} must be $wanted, got ${told.take(TOLD_CHARACTERS)}")
    }

    private inline fun <reified T> field(name: String, wanted: String): T = json.opt(name) as? T ?: wrong(name, wanted)

    private fun inside(name: String) = if (path.isEmpty()) name else "$path.$name"

    companion object {
        // So much of what a peer says is repeated in a message.
        private const val TOLD_CHARACTERS = 200

        /** The whole number in [range] that a value is, or null. */
        fun wholeOf(value: Any?, range: LongRange): Long? = when (value) {
            is Int -> value.toLong()
            is Long -> value
            else -> null
        }?.takeIf { it in range }

        /** @throws FormatException the text is no JSON object. */
        fun parse(text: String): CheckedJson {
            JsonGrammar.check(text)
            try {
                return CheckedJson(JSONObject(text), "")
            } catch (e: JSONException) {
                throw FormatException("it must be a JSON object: ${e.message?.take(TOLD_CHARACTERS)}", e)
            }
        }

        /** @throws FormatException the bytes are no JSON object in UTF-8. */
        fun parse(bytes: ByteArray): CheckedJson {
            try {
                return parse(Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString())
            } catch (e: CharacterCodingException) {
                throw FormatException("it is no JSON: it is not UTF-8", e)
            }
        }
    }
}
