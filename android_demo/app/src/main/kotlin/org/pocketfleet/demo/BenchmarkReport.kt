package org.pocketfleet.demo

import org.json.JSONArray
import org.json.JSONObject

/** The phone just before or after it measured; null: it does not tell. */
data class PhoneMoment(
    val batteryRatio: Double?,
    val charging: Boolean,
    /** Into the battery; out of it below 0. */
    val batteryAmperes: Double?,
    val batteryVolts: Double?,
    val batteryCelsius: Double?,
    /** Android's severity, 0 to 6. */
    val thermalStatus: Int?,
    val freeMemoryBytes: Long,
)

/** The phone that measured. [machine] is its processor's kind, [system] Android's version. */
data class BenchmarkHost(
    val model: String,
    val manufacturer: String,
    val machine: String,
    val system: String,
    val cores: Int,
    val memoryBytes: Long,
    val versions: Map<String, String>,
    val before: PhoneMoment,
    val after: PhoneMoment,
)

/** A result in the form of `pocketfleet bench --json`, schema version 2. */
object BenchmarkReport {
    private const val SCHEMA_VERSION = 2

    /** The whole file. */
    fun json(host: BenchmarkHost, facts: BundleFacts, run: ProcessRun, rules: BenchmarkRules): JSONObject =
        JSONObject()
            .put("schema_version", SCHEMA_VERSION)
            .put("kind", "pocketfleet-bench")
            .put("suite", JSONObject.NULL)
            .put(
                "rules",
                JSONObject()
                    .put("warm_up_steps", rules.warmUpSteps)
                    .put("least_steps", rules.leastSteps)
                    .put("least_s", rules.leastS),
            )
            .put("host", host(host))
            .put("results", JSONArray().put(result(facts, run)))

    private fun host(host: BenchmarkHost): JSONObject = JSONObject()
        .put("name", host.model)
        .put("machine", host.machine)
        .put("system", host.system)
        .put("cores", host.cores)
        // Android keeps it from apps.
        .put("load_average", JSONObject.NULL)
        .put("versions", JSONObject(host.versions))
        .put(
            "phone",
            JSONObject()
                .put("model", host.model)
                .put("manufacturer", host.manufacturer)
                .put("memory_bytes", host.memoryBytes)
                .put("before", moment(host.before))
                .put("after", moment(host.after)),
        )

    private fun moment(moment: PhoneMoment): JSONObject = JSONObject()
        .put("battery_ratio", orNull(moment.batteryRatio))
        .put("charging", moment.charging)
        .put("battery_amperes", orNull(moment.batteryAmperes))
        .put("battery_volts", orNull(moment.batteryVolts))
        .put("battery_celsius", orNull(moment.batteryCelsius))
        .put("thermal_status", orNull(moment.thermalStatus))
        .put("free_memory_bytes", moment.freeMemoryBytes)

    private fun result(facts: BundleFacts, run: ProcessRun): JSONObject = JSONObject()
        .put("workload", facts.task)
        .put(
            "bundle",
            JSONObject()
                .put("task", facts.task)
                .put("max_batch", facts.bundle.manifest.maxBatch)
                .put("workload_sha256", facts.workloadSha256)
                .put("programs_sha256", facts.programsSha256)
                .put("exported_with", facts.exportedWith),
        )
        .put("measured", JSONArray().put(measured(facts, run)))
        .put("predicted", JSONArray())

    private fun measured(facts: BundleFacts, run: ProcessRun): JSONObject = JSONObject()
        .put("runtime", BundleFacts.RUNTIME)
        .put("download_bytes", facts.downloadBytes)
        .put("planned_memory_bytes", facts.bundle.manifest.memory.trainingBytes)
        .put("processes", JSONArray().put(process(run)))
        .put("profile", JSONObject.NULL)
        .put("sustained", JSONArray())

    private fun process(run: ProcessRun): JSONObject = JSONObject()
        .put("threads", run.threads)
        .put("load_s", run.loadS)
        .put("first_step_s", run.firstStepS)
        .put("idle_rss_bytes", run.idleRssBytes)
        .put("peak_rss_bytes", run.peakRssBytes)
        .put("steps", JSONArray(run.steps.map(::steps)))

    private fun steps(times: StepTimes): JSONObject = JSONObject()
        .put("batch", times.batch)
        .put("examples_per_s", times.examplesPerS)
        .put("flops_per_s", times.flopsPerS)
        .put(
            "latency",
            JSONObject()
                .put("steps", times.latency.steps)
                .put("median_s", times.latency.medianS)
                .put("p95_s", times.latency.p95S)
                .put("minimum_s", times.latency.minimumS),
        )

    private fun orNull(value: Any?): Any = value ?: JSONObject.NULL
}
