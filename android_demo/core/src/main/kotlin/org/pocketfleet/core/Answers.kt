package org.pocketfleet.core

import org.json.JSONObject

/** The answer to an enrolment: the [credential] is shown this once. */
data class Enrolled(val deviceId: String, val credential: String) {
    companion object {
        fun of(fields: CheckedJson): Enrolled = Enrolled(fields.text("device_id"), fields.text("credential"))
    }
}

/** The model that this device is to use: the released one, or the one in trial if the device is in its share. */
data class ReleasedModel(val version: Long, val weights: FileEntry) {
    fun toJson(): JSONObject = jsonOf("version" to version, "weights" to weights.toJson())

    companion object {
        fun of(fields: CheckedJson): ReleasedModel =
            ReleasedModel(fields.whole("version"), fields.file("weights"))
    }
}

/** No work now: why, and when to come again; [retryAfterS] is null where it never is. */
data class TurnedAway(val reason: String, val message: String, val retryAfterS: Double?) {
    companion object {
        fun of(fields: CheckedJson): TurnedAway = TurnedAway(
            reason = fields.text("reason"),
            message = fields.text("message"),
            retryAfterS = fields.optionalNumber("retry_after_s")?.let { fields.seconds("retry_after_s") },
        )
    }
}

/** What a device that checked in is told: work to train or to measure, or why there is none. */
sealed interface Told {
    data class Train(val assignment: Assignment) : Told

    data class Evaluate(val work: EvaluationWork) : Told

    data class Away(val turnedAway: TurnedAway) : Told
}

/** The answer to a check-in. */
data class CheckInAnswer(val told: Told, val released: ReleasedModel) {
    companion object {
        fun of(fields: CheckedJson): CheckInAnswer {
            val told = listOfNotNull(
                fields.optionalPart("assignment")?.let { Told.Train(Assignment.of(it)) },
                fields.optionalPart("evaluation")?.let { Told.Evaluate(EvaluationWork.of(it)) },
                fields.optionalPart("turned_away")?.let { Told.Away(TurnedAway.of(it)) },
            )
            if (told.size != 1) {
                throw FormatException(
                    "exactly one of assignment, evaluation and turned_away must be there, got ${told.size} of them",
                )
            }
            return CheckInAnswer(told.single(), ReleasedModel.of(fields.part("released")))
        }
    }
}

/** The report on [round] is durable and counts: `accepted` now, or `repeated`: it was before. */
data class ReportAnswer(val code: String, val round: Long) {
    companion object {
        fun of(fields: CheckedJson): ReportAnswer =
            ReportAnswer(fields.oneOf("code", "accepted", "repeated"), fields.whole("round"))
    }
}

/** The evaluation is durable and counts: `counted` now, or `repeated`: it was before. */
data class EvaluationAnswer(val code: String) {
    companion object {
        fun of(fields: CheckedJson): EvaluationAnswer = EvaluationAnswer(fields.oneOf("code", "counted", "repeated"))
    }
}

/** What the service knows of this device; a report on one of [openAssignments] counts as yet. */
data class Status(
    val deviceId: String,
    val population: String,
    val round: Long,
    val modelVersion: Long,
    val paused: Boolean,
    val reportsAccepted: Long,
    val openAssignments: List<Long>,
    val released: ReleasedModel,
) {
    companion object {
        fun of(fields: CheckedJson): Status = Status(
            deviceId = fields.text("device_id"),
            population = fields.text("population"),
            round = fields.whole("round"),
            modelVersion = fields.whole("model_version"),
            paused = fields.flag("paused"),
            reportsAccepted = fields.whole("reports_accepted"),
            openAssignments = fields.wholes("open_assignments"),
            released = ReleasedModel.of(fields.part("released")),
        )
    }
}

/** Why a request was refused: [code] is for programs, [message] for people. */
data class ErrorAnswer(val code: String, val message: String) {
    companion object {
        fun of(fields: CheckedJson): ErrorAnswer {
            val error = fields.part("error")
            return ErrorAnswer(error.text("code"), error.text("message"))
        }
    }
}
