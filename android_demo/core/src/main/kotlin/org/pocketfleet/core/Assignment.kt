package org.pocketfleet.core

import org.json.JSONObject

/** What becomes of the steps that a device made before it had to stop: in use, hot, unplugged, its job ended. */
enum class PartialWork(val word: String) {
    /** They are reported: fewer examples count for less. */
    REPORT("report"),

    /** Nothing of them counts. */
    DISCARD("discard"),
}

/**
 * Work: train from [weights] and report.
 *
 * Steps are [steps] where that is above 0, or else [epochs] passes over the device's training examples, in batches of
 * [batchSize] drawn from [batchSeed]. The report is written in [codec], which draws from [codecSeed] what all devices of
 * the version draw alike; its body has exactly [updateBytes] bytes. [weights] hold [downloadBits] of each weight; 0: all.
 * [bundle] names the program's files by the names that they have in a bundle.
 */
data class Assignment(
    val assignmentId: Long,
    val round: Long,
    val modelVersion: Long,
    val deadlineInS: Double,
    val program: String,
    val bundle: Map<String, FileEntry>,
    val weights: FileEntry,
    val broadcast: FileEntry?,
    val algorithm: String,
    val algorithmOptions: Map<String, Any>,
    val hyper: Map<String, Double>,
    val epochs: Long,
    val steps: Long,
    val batchSize: Int,
    val batchSeed: Long,
    val codec: String,
    val codecOptions: Map<String, Any>,
    val codecSeed: Long,
    val downloadBits: Int,
    val updateBytes: Long,
    val partialWork: PartialWork,
    val rule: Rule,
) {
    fun toJson(): JSONObject = jsonOf(
        "assignment_id" to assignmentId,
        "work" to WORK,
        "round" to round,
        "model_version" to modelVersion,
        "deadline_in_s" to deadlineInS,
        "program" to program,
        "bundle" to bundle.toJson(),
        "weights" to weights.toJson(),
        "broadcast" to broadcast?.toJson(),
        "algorithm" to algorithm,
        "algorithm_options" to JSONObject(algorithmOptions),
        "hyper" to JSONObject(hyper),
        "epochs" to epochs,
        "steps" to steps,
        "batch_size" to batchSize,
        "batch_seed" to batchSeed,
        "codec" to codec,
        "codec_options" to JSONObject(codecOptions),
        "codec_seed" to codecSeed,
        "download_bits" to downloadBits,
        "update_bytes" to updateBytes,
        "partial_work" to partialWork.word,
        "rule" to rule.toJson(),
    )

    companion object {
        private const val WORK = "train"
        private val WORDS = PartialWork.entries.map { it.word }.toTypedArray()

        private fun options(fields: CheckedJson): Map<String, Any> = fields.names.associateWith(fields::any)

        private fun partialWork(word: String) = PartialWork.entries.first { it.word == word }

        fun of(fields: CheckedJson): Assignment {
            fields.oneOf("work", WORK)
            return Assignment(
                assignmentId = fields.whole("assignment_id"),
                round = fields.whole("round"),
                modelVersion = fields.whole("model_version"),
                deadlineInS = fields.seconds("deadline_in_s"),
                program = fields.text("program"),
                bundle = fields.files("bundle"),
                weights = fields.file("weights"),
                broadcast = fields.optionalPart("broadcast")?.let { FileEntry.of(it) },
                algorithm = fields.text("algorithm"),
                algorithmOptions = fields.optionalPart("algorithm_options")?.let(::options).orEmpty(),
                hyper = fields.part("hyper").let { hyper -> hyper.names.associateWith(hyper::number) },
                epochs = fields.whole("epochs"),
                steps = fields.whole("steps"),
                batchSize = fields.small("batch_size"),
                batchSeed = fields.whole("batch_seed"),
                codec = fields.text("codec"),
                codecOptions = options(fields.part("codec_options")),
                codecSeed = fields.whole("codec_seed"),
                downloadBits = fields.small("download_bits"),
                updateBytes = fields.whole("update_bytes"),
                partialWork = partialWork(fields.oneOf("partial_work", *WORDS)),
                rule = fields.rule("rule"),
            )
        }
    }
}

/**
 * Work: measure [tried] and [released] on the examples that the device holds out, and report the means of [metric].
 *
 * Batches have at most [batchSize] examples.
 */
data class EvaluationWork(
    val evaluationId: Long,
    val stage: String,
    val deadlineInS: Double,
    val program: String,
    val bundle: Map<String, FileEntry>,
    val tried: ReleasedModel,
    val released: ReleasedModel,
    val metric: String,
    val batchSize: Int,
    val rule: Rule,
) {
    companion object {
        fun of(fields: CheckedJson): EvaluationWork {
            fields.oneOf("work", "evaluate")
            return EvaluationWork(
                evaluationId = fields.whole("evaluation_id"),
                stage = fields.oneOf("stage", "candidate", "canary"),
                deadlineInS = fields.seconds("deadline_in_s"),
                program = fields.text("program"),
                bundle = fields.files("bundle"),
                tried = ReleasedModel.of(fields.part("tried")),
                released = ReleasedModel.of(fields.part("released")),
                metric = fields.text("metric"),
                batchSize = fields.small("batch_size"),
                rule = fields.rule("rule"),
            )
        }
    }
}
