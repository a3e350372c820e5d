"""How training that gives no finite numbers any more is told, with what helps."""

from pocketfleet.errors import TrainingDivergedError

__all__ = ["diverged"]


def diverged(rounds: str, what: str, *, private: bool, resumable: bool) -> TrainingDivergedError:
    """The error to raise.

    Args:
        rounds: where, such as ``"round 3"``.
        what: that is not finite.
        private: whether noise is added, which may be the cause.
        resumable: whether there is a checkpoint to go on from.
    """
    advice = "start anew with a lower training.learning_rate, or with training.max_norm above 0"
    if private:
        advice = (
            "the noise is too much for the model, or the rate: start anew with less noise (a lower "
            "privacy.noise_multiplier or privacy.max_norm, a higher privacy.target_epsilon, a larger rounds.cohort), "
            "or with a lower training.learning_rate"
        )
    elif resumable:
        advice = (
            "go on from the last checkpoint with a lower rate, such as --resume RUN --set "
            "training.learning_rate=0.001, or start anew with training.max_norm above 0"
        )
    return TrainingDivergedError(f"training diverged in {rounds}: {what} not finite; {advice}")
