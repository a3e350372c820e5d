package org.pocketfleet.demo

import android.content.res.Resources

/** A [UiState] in the user's language. */
class ScreenWords(private val resources: Resources) {
    /** What training does, in a sentence. */
    fun stage(state: UiState.Member): String = when {
        !state.consents -> resources.getString(R.string.stage_off)
        state.paused -> resources.getString(R.string.stage_paused)
        else -> when (val stage = state.stage) {
            Stage.Resting -> resources.getString(R.string.stage_resting)
            Stage.Working -> resources.getString(R.string.stage_working)
            is Stage.Ended -> resources.getString(ended(stage.how), stage.detail)
        }
    }

    /** The newest round: loss, error of the shared model, error of the phone's own; empty where there is none. */
    fun rounds(state: UiState.Member): List<String> {
        val newest = state.rounds.lastOrNull() ?: return listOf(resources.getString(R.string.curve_none), "", "")
        // The task's first metric: an error for houses, for digits the share that is right.
        val accuracy = state.task == DemoTask.DIGITS
        val factor = if (accuracy) 100.0 else 1.0
        val shared = if (accuracy) R.string.accuracy_global else R.string.curve_global
        val own = if (accuracy) R.string.accuracy_personal else R.string.curve_personal
        return listOf(
            resources.getString(R.string.curve_loss, newest.trainLoss),
            newest.errorGlobal?.let { resources.getString(shared, factor * it) }.orEmpty(),
            newest.errorPersonal?.let { resources.getString(own, factor * it) }.orEmpty(),
        )
    }

    /** The curves for who does not see them. */
    fun curve(state: UiState.Member): String {
        val newest = rounds(state).filter(String::isNotEmpty).joinToString(". ")
        return resources.getString(R.string.curve_described, state.rounds.size, newest)
    }

    /** How many examples there are. */
    fun examples(state: UiState.Member): String =
        resources.getQuantityString(R.plurals.examples, state.examples, state.examples, state.heldOut)

    /** What the model says; empty: it was not asked. */
    fun prediction(prediction: Prediction?): String = when (prediction) {
        null -> ""
        is Prediction.Price -> resources.getString(R.string.prediction_price, prediction.thousands)
        is Prediction.Digit -> resources.getString(R.string.prediction_digit, prediction.digit, 100 * prediction.ratio)
        Prediction.NoModel -> resources.getString(R.string.prediction_no_model)
    }

    /** What the user can do something about. */
    fun problem(problem: Problem): String = resources.getString(
        when (problem.kind) {
            Problem.Kind.ADDRESS -> R.string.problem_address
            Problem.Kind.TOKEN -> R.string.problem_token
            Problem.Kind.NOT_REACHED -> R.string.problem_not_reached
            Problem.Kind.REFUSED -> R.string.problem_refused
            Problem.Kind.STORAGE -> R.string.problem_storage
            Problem.Kind.FIELD_EMPTY -> R.string.problem_field_empty
            Problem.Kind.FIELD_NO_NUMBER -> R.string.problem_field_no_number
            Problem.Kind.NOTHING_DRAWN -> R.string.problem_nothing_drawn
            Problem.Kind.NO_LABEL -> R.string.problem_no_label
            Problem.Kind.PREDICTION -> R.string.problem_prediction
            Problem.Kind.UNREADABLE -> R.string.problem_unreadable
            Problem.Kind.REVOKED -> R.string.stage_revoked
        },
        problem.detail,
    )

    private fun ended(how: Ending): Int = when (how) {
        Ending.NOT_ELIGIBLE -> R.string.stage_not_eligible
        Ending.NO_WORK -> R.string.stage_no_work
        Ending.NEVER_AGAIN -> R.string.stage_never_again
        Ending.REPORTED -> R.string.stage_reported
        Ending.EVALUATED -> R.string.stage_evaluated
        Ending.DROPPED -> R.string.stage_dropped
        Ending.STOPPED -> R.string.stage_stopped
        Ending.FAILED -> R.string.stage_failed
        Ending.REVOKED -> R.string.stage_revoked
    }
}
