package org.pocketfleet.core

import java.io.File
import java.io.RandomAccessFile
import org.json.JSONObject

/**
 * How one attempt went, as it is remembered: [outcome] is `accepted`, or why nothing of it counts.
 *
 * What was not come to is null. [wallS] is when it was over.
 */
data class RoundRecord(
    val assignmentId: Long,
    val round: Long,
    val modelVersion: Long,
    val outcome: String,
    val wallS: Double,
    val steps: Long? = null,
    val trainLoss: Double? = null,
    val metric: String? = null,
    val metricGlobal: Double? = null,
    val metricPersonalised: Double? = null,
) {
    fun toJson(): JSONObject = jsonOf(
        "assignment_id" to assignmentId,
        "round" to round,
        "model_version" to modelVersion,
        "outcome" to outcome,
        "wall_s" to wallS,
        "steps" to steps,
        "train_loss" to trainLoss,
        "metric" to metric,
        "metric_global" to metricGlobal,
        "metric_personalised" to metricPersonalised,
    )

    companion object {
        fun of(fields: CheckedJson): RoundRecord = RoundRecord(
            assignmentId = fields.whole("assignment_id"),
            round = fields.whole("round"),
            modelVersion = fields.whole("model_version"),
            outcome = fields.text("outcome"),
            wallS = fields.number("wall_s"),
            steps = if (fields.has("steps")) fields.whole("steps") else null,
            trainLoss = fields.optionalNumber("train_loss"),
            metric = fields.optionalText("metric"),
            metricGlobal = fields.optionalNumber("metric_global"),
            metricPersonalised = fields.optionalNumber("metric_personalised"),
        )
    }
}

/** The attempts that are over, a line each; a line that a crash tore is none. */
class RoundHistory(private val file: File, private val disk: Disk) {
    /** In the order in which they ended. */
    fun all(): List<RoundRecord> {
        if (!file.isFile) return emptyList()
        return onStorage("cannot read ${file.name}") { file.readLines() }.mapNotNull { line ->
            try {
                RoundRecord.of(CheckedJson.parse(line))
            } catch (_: FormatException) {
                null
            }
        }
    }

    /**
     * Remember an attempt; one that was the last already is not written twice.
     *
     * Services number their assignments alike: it is the same one only if it was over at the same moment too.
     */
    fun note(record: RoundRecord) {
        val last = all().lastOrNull()
        if (last != null && last.assignmentId == record.assignmentId && last.wallS == record.wallS) return
        onStorage("cannot write ${file.name}") {
            val start = if (isTorn()) "\n" else ""
            disk.append(file).use {
                it.write("$start${record.toJson()}\n".toByteArray())
                it.sync()
            }
        }
    }

    private fun isTorn(): Boolean {
        if (file.length() == 0L) return false
        return RandomAccessFile(file, "r").use {
            it.seek(file.length() - 1)
            it.read() != '\n'.code
        }
    }
}
