package org.pocketfleet.core

import org.json.JSONArray
import org.json.JSONObject

/** The version of the protocol that this app speaks. */
const val PROTOCOL_VERSION = 1

/** `POST enrol`: a one-time token becomes a device's own credential. */
data class Enrolment(
    val token: String,
    val phone: PhoneIdentity? = null,
    val appVersion: String = phone?.appVersion.orEmpty(),
) {
    fun toJson(): JSONObject = jsonOf(
        "token" to token,
        "phone" to phone?.let {
            jsonOf(
                "model" to it.model.ifEmpty { null },
                "manufacturer" to it.manufacturer.ifEmpty { null },
                "os_version" to it.osVersion.ifEmpty { null },
                "memory_bytes" to it.memoryBytes.takeIf { bytes -> bytes > 0 },
            )
        },
        "app_version" to appVersion.ifEmpty { null },
    )
}

/** How the device is at the moment, as the service records it; null: not told. What it holds is nobody's business. */
data class Conditions(
    val idle: Boolean? = null,
    val charging: Boolean? = null,
    val unmetered: Boolean? = null,
    val batteryRatio: Double? = null,
    val freeMemoryBytes: Long? = null,
    val skinCelsius: Double? = null,
) {
    fun toJson(): JSONObject = jsonOf(
        "idle" to idle,
        "charging" to charging,
        "unmetered" to unmetered,
        "battery_ratio" to batteryRatio,
        "free_memory_bytes" to freeMemoryBytes,
        "skin_celsius" to skinCelsius,
    )

    companion object {
        /** What the sensors found. */
        fun of(found: PhoneConditions): Conditions = Conditions(
            idle = found.idle,
            charging = found.charging,
            unmetered = found.unmetered,
            batteryRatio = found.batteryRatio,
            freeMemoryBytes = found.freeMemoryBytes,
            skinCelsius = found.skinCelsius,
        )
    }
}

/**
 * `POST check-in`: the device is free to work, and says what it can do.
 *
 * [programs] are the runtimes that it has, with their versions, [codecs] the parts of codecs; [evaluates] says that it
 * can evaluate models and holds examples out.
 */
data class CheckIn(
    val programs: Map<String, String>,
    val protocol: Int = PROTOCOL_VERSION,
    val codecs: List<String> = CodecByName.DEVICE_PARTS,
    val appVersion: String = "",
    val conditions: Conditions? = null,
    val evaluates: Boolean = false,
) {
    fun toJson(): JSONObject = jsonOf(
        "protocol" to protocol,
        "programs" to JSONObject(programs),
        "codecs" to JSONArray(codecs),
        "app_version" to appVersion.ifEmpty { null },
        "conditions" to conditions?.toJson(),
        "evaluates" to evaluates.takeIf { it },
    )
}

/**
 * What a report says beside its tensors.
 *
 * [numExamples] were processed, repeats counted: the update's weight. [examplesHeld] are on the device, with those that
 * it holds out. The metrics are of the downloaded model and of the trained one on examples held out; null: none are.
 */
data class ReportFacts(
    val numExamples: Long,
    val steps: Long,
    val examplesHeld: Long,
    val trainLoss: Double,
    val metricGlobal: Double? = null,
    val metricPersonalised: Double? = null,
) {
    /** As the query of `PUT reports/{assignment_id}`. */
    fun toQuery(): Map<String, String> = toMap().mapValues { it.value.toString() }

    fun toJson(): JSONObject = JSONObject(toMap())

    private fun toMap(): Map<String, Any> {
        val found = linkedMapOf<String, Any>(
            "num_examples" to numExamples,
            "steps" to steps,
            "examples_held" to examplesHeld,
            "train_loss" to trainLoss,
        )
        metricGlobal?.let { found["metric_global"] = it }
        metricPersonalised?.let { found["metric_personalised"] = it }
        return found
    }

    companion object {
        fun of(fields: CheckedJson): ReportFacts = ReportFacts(
            numExamples = fields.whole("num_examples"),
            steps = fields.whole("steps"),
            examplesHeld = fields.whole("examples_held"),
            trainLoss = fields.number("train_loss"),
            metricGlobal = fields.optionalNumber("metric_global"),
            metricPersonalised = fields.optionalNumber("metric_personalised"),
        )
    }
}

/** `PUT evaluations/{evaluation_id}`: means of the metric over [numHeldOut] examples; null: no finite number. */
data class EvaluationReport(val numHeldOut: Long, val tried: Double?, val released: Double?) {
    fun toJson(): JSONObject = JSONObject()
        .put("num_held_out", numHeldOut)
        .put("tried", tried ?: JSONObject.NULL)
        .put("released", released ?: JSONObject.NULL)
}

/** `POST benchmarks`: what a step took on this device. */
data class BenchmarkResult(
    val program: String,
    val batchSize: Int,
    val medianS: Double,
    val repeats: Int,
    val runtimeVersion: String = "",
    val method: String = "",
    val peakMemoryBytes: Long? = null,
) {
    fun toJson(): JSONObject = jsonOf(
        "program" to program,
        "runtime_version" to runtimeVersion.ifEmpty { null },
        "method" to method.ifEmpty { null },
        "batch_size" to batchSize,
        "median_s" to medianS,
        "repeats" to repeats,
        "peak_memory_bytes" to peakMemoryBytes,
    )
}
