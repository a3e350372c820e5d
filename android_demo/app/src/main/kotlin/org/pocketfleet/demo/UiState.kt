package org.pocketfleet.demo

import org.pocketfleet.core.RoundRecord

/** All that the screen shows at one moment. */
sealed interface UiState {
    /** Nothing was read from the disk yet. */
    data object Opening : UiState

    /** The phone takes no part: an address and a token make it a member. */
    data class Outside(val task: DemoTask, val joining: Boolean = false, val problem: Problem? = null) : UiState

    /**
     * The phone is a member. It trains only where [consents], and is not [paused].
     *
     * [working] is the one tap that the service has not answered yet.
     */
    data class Member(
        val task: DemoTask,
        val consents: Boolean,
        val paused: Boolean,
        val stage: Stage,
        val rounds: List<RoundPoint>,
        val examples: Int,
        val heldOut: Int,
        val prediction: Prediction? = null,
        val working: Boolean = false,
        val problem: Problem? = null,
    ) : UiState
}

/** What training does just now, or how it ended last. */
sealed interface Stage {
    /** Nothing happened since the app began. */
    data object Resting : Stage

    /** A visit to the service is under way. */
    data object Working : Stage

    /** The last visit ended. [detail] is the reason's word or the service's message, empty where there is none. */
    data class Ended(val how: Ending, val detail: String = "") : Stage
}

/** How a visit ended. */
enum class Ending { NOT_ELIGIBLE, NO_WORK, NEVER_AGAIN, REPORTED, EVALUATED, DROPPED, STOPPED, FAILED, REVOKED }

/** One round that this phone reported in. Errors are means over its held-out examples; null: it holds none out. */
data class RoundPoint(val round: Long, val trainLoss: Double, val errorGlobal: Double?, val errorPersonal: Double?) {
    companion object {
        /** Of an attempt that is over; null: nothing of it counts. */
        fun of(record: RoundRecord): RoundPoint? {
            val loss = record.trainLoss?.takeIf { record.outcome == "accepted" } ?: return null
            return RoundPoint(record.round, loss, record.metricGlobal, record.metricPersonalised)
        }
    }
}

/** What the phone's own model says of the input on the screen. */
sealed interface Prediction {
    /** A price in thousands of dollars. */
    data class Price(val thousands: Float) : Prediction

    /** The likeliest digit and how sure the model is, 0 to 1. */
    data class Digit(val digit: Int, val ratio: Float) : Prediction

    /** The phone has no model yet: it has never been given work. */
    data object NoModel : Prediction
}

/** Something that the user can do something about; [detail] is for people, from whom it came. */
data class Problem(val kind: Kind, val detail: String = "") {
    enum class Kind {
        ADDRESS, TOKEN, NOT_REACHED, REFUSED, STORAGE, FIELD_EMPTY, FIELD_NO_NUMBER, NOTHING_DRAWN, NO_LABEL,
        PREDICTION, UNREADABLE, REVOKED,
    }
}
