package org.pocketfleet.core

import org.json.JSONObject

// What messages of the protocol hold beside what [CheckedJson] reads by itself; all throw its FormatException.

/** A whole number that fits 32 bits, 0 or more. */
internal fun CheckedJson.small(name: String): Int = whole(name, 0..Int.MAX_VALUE.toLong()).toInt()

/** A number, 0 or more. */
internal fun CheckedJson.seconds(name: String): Double =
    number(name).takeIf { it >= 0.0 } ?: wrong(name, "a number of 0 or more")

/** One of [allowed]. */
internal fun CheckedJson.oneOf(name: String, vararg allowed: String): String =
    text(name).takeIf { it in allowed } ?: wrong(name, "one of ${allowed.joinToString()}")

/** A text; null: it is not there, or null. */
internal fun CheckedJson.optionalText(name: String): String? = if (has(name)) text(name) else null

/** A finite number; null: it is not there, or null. */
internal fun CheckedJson.optionalNumber(name: String): Double? = if (has(name)) number(name) else null

/** An object; null: it is not there, or null. */
internal fun CheckedJson.optionalPart(name: String): CheckedJson? = if (has(name)) part(name) else null

/** Whole numbers of 0 or more. */
internal fun CheckedJson.wholes(name: String): List<Long> = items(name).mapIndexed { place, item ->
    CheckedJson.wholeOf(item, 0..Long.MAX_VALUE) ?: wrong("$name.$place", "a whole number of 0 or more", item)
}

/** A file to get. */
internal fun CheckedJson.file(name: String): FileEntry = FileEntry.of(part(name))

/** Files to get, by name. */
internal fun CheckedJson.files(name: String): Map<String, FileEntry> =
    part(name).let { inner -> inner.names.associateWith { inner.file(it) } }

/** When a device may train. */
internal fun CheckedJson.rule(name: String): Rule {
    val found = part(name)
    try {
        return Rule(
            idle = found.flag("idle"),
            charging = found.flag("charging"),
            unmetered = found.flag("unmetered"),
            minBatteryRatio = found.number("min_battery_ratio"),
            minExamples = found.whole("min_examples"),
        )
    } catch (exc: IllegalArgumentException) {
        throw FormatException("$name: ${exc.message}", exc)
    }
}

/** What [read] makes of a text that [what] should be; messages name it. */
internal fun <T> message(text: String, what: String, read: (CheckedJson) -> T): T =
    try {
        read(CheckedJson.parse(text))
    } catch (exc: FormatException) {
        throw FormatException("$what: ${exc.message}", exc)
    }

/** A JSON object of [fields], without those that are null. */
internal fun jsonOf(vararg fields: Pair<String, Any?>): JSONObject {
    val json = JSONObject()
    for ((name, value) in fields) if (value != null) json.put(name, value)
    return json
}

internal fun FileEntry.toJson(): JSONObject = jsonOf("sha256" to sha256, "bytes" to bytes)

internal fun Map<String, FileEntry>.toJson(): JSONObject = JSONObject(mapValues { it.value.toJson() })

internal fun Rule.toJson(): JSONObject = jsonOf(
    "idle" to idle,
    "charging" to charging,
    "unmetered" to unmetered,
    "min_battery_ratio" to minBatteryRatio,
    "min_examples" to minExamples,
)
