package org.pocketfleet.core

import org.json.JSONArray
import org.json.JSONException
import org.json.JSONObject

/**
 * The fields of one JSON object, read by name and type; those that nobody asks for are ignored.
 *
 * [JSONObject]'s own getters turn texts into numbers and numbers into doubles, which would round the 63 bits of a seed:
 * none of them is used. Whatever is missing or of another type throws [FormatException] with the field's full name.
 */
class JsonFields(private val json: JSONObject, private val where: String = "") {
    /** A text. */
    fun text(name: String): String = needed(name, "a text", value(name) as? String)

    /** True or false. */
    fun flag(name: String): Boolean = needed(name, "true or false", value(name) as? Boolean)

    /** A whole number of at most 64 bits, 0 or more. */
    fun whole(name: String): Long = checkedWhole(name, value(name))

    /** A whole number that fits 32 bits, 0 or more. */
    fun small(name: String): Int {
        val found = whole(name)
        return needed(name, "at most ${Int.MAX_VALUE}", found.toInt().takeIf { found <= Int.MAX_VALUE })
    }

    /** A number; whole ones are numbers too. */
    fun number(name: String): Double = needed(name, "a number", (value(name) as? Number)?.toDouble()?.takeIf { it.isFinite() })

    /** A number, 0 or more. */
    fun seconds(name: String): Double = needed(name, "a number of 0 or more", number(name).takeIf { it >= 0.0 })

    /** The SHA-256 of something, as 64 hexadecimal digits. */
    fun sha256(name: String): String =
        needed(name, "64 hexadecimal digits", text(name).takeIf { text -> text.length == 64 && text.all { it in HEX } })

    /** One of [allowed]. */
    fun oneOf(name: String, vararg allowed: String): String =
        needed(name, "one of ${allowed.joinToString()}", text(name).takeIf { it in allowed })

    /** An object. */
    fun fields(name: String): JsonFields = needed(name, "an object", optionalFields(name))

    /** An object; null: it is not there, or null. */
    fun optionalFields(name: String): JsonFields? {
        val found = value(name) ?: return null
        return JsonFields(needed(name, "an object", found as? JSONObject), path(name))
    }

    /** A text; null: it is not there, or null. */
    fun optionalText(name: String): String? = if (value(name) == null) null else text(name)

    /** A number; null: it is not there, or null. */
    fun optionalNumber(name: String): Double? = if (value(name) == null) null else number(name)

    /** Whole numbers of 0 or more. */
    fun wholes(name: String): List<Long> {
        val found = needed(name, "a list", value(name) as? JSONArray)
        return (0 until found.length()).map { place -> checkedWhole("$name.$place", found.opt(place)) }
    }

    /** The object's own names, each read by [read]. */
    fun <T> each(read: JsonFields.(String) -> T): Map<String, T> {
        val found = LinkedHashMap<String, T>()
        for (name in json.keys().asSequence().map(Any?::toString)) found[name] = read(name)
        return found
    }

    /** The object as it came. */
    fun source(): JSONObject = json

    /** The full name of the field [name]. */
    fun path(name: String): String = if (where.isEmpty()) name else "$where.$name"

    private fun value(name: String): Any? = json.opt(name).takeUnless { it == JSONObject.NULL }

    private fun checkedWhole(name: String, value: Any?): Long {
        val found = when (value) {
            is Int -> value.toLong()
            is Long -> value
            else -> null
        }
        return needed(name, "a whole number of 0 or more", found?.takeIf { it >= 0 }, came = value)
    }

    private fun <T : Any> needed(name: String, wanted: String, found: T?, came: Any? = value(name)): T =
        found ?: throw FormatException(
            if (came == null) "${path(name)} is missing: it must be $wanted"
            else "${path(name)} must be $wanted, got ${came.toString().take(TOLD_CHARACTERS)}",
        )

    companion object {
        private const val HEX = "0123456789abcdef"

        // So much of what came is repeated in a message.
        private const val TOLD_CHARACTERS = 100

        /** The object that [text] is; a [FormatException] names [what] it should have been. */
        fun of(text: String, what: String): JsonFields {
            try {
                return JsonFields(JSONObject(text))
            } catch (exc: JSONException) {
                throw FormatException("$what is no JSON object: ${exc.message}")
            }
        }
    }
}

/** A JSON object of [fields], without those that are null. */
internal fun jsonOf(vararg fields: Pair<String, Any?>): JSONObject {
    val json = JSONObject()
    for ((name, value) in fields) if (value != null) json.put(name, value)
    return json
}
