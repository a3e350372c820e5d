"""What does not go together with sums that hide their parts, or with a model's promise to each device, and why."""

from typing import TYPE_CHECKING

from pocketfleet.training.round import RoundPlan

if TYPE_CHECKING:
    from pocketfleet.experiment import Experiment

__all__ = ["check_privacy", "check_secure_aggregation"]

# A sum of one hides nothing.
_LEAST_GROUP = 2
# Parts of a codec that are linear and the same on all devices.
_SUMMED_PARTS = {"lossless", "random_k", "rotation"}
# What a server that reads sums alone cannot do: a key, the value that it must have, and why.
_NOT_UNDER_SECURE_SUMS: tuple[tuple[str, object, str], ...] = (
    ("rounds.policy", "synchronous", "masks cancel within a round's group, and a buffer has none"),
    ("rounds.recording", "", "what a service recorded of such rounds holds no updates to be replayed"),
    ("rounds.selection", "uniform", "it learns from each phone's loss, which nobody sees"),
    ("aggregation.rule", "mean", "it compares single updates, which nobody sees"),
    ("release.gate", "none", "each device tells what it finds of every version on its own examples"),
    ("service.max_update_norm", 0.0, "it is checked on single updates, which nobody sees"),
    ("service.max_num_examples", 0, "it is checked on single reports; secure_aggregation.max_examples bounds them"),
)


def check_secure_aggregation(experiment: "Experiment") -> None:
    """Whether an experiment's sums can hide their parts.

    Raises:
        ValueError: something is asked for that a server which reads sums alone cannot do.
    """
    if not experiment.secure_aggregation.enabled:
        return
    for key, wanted, why in _NOT_UNDER_SECURE_SUMS:
        section, _, name = key.partition(".")
        value = getattr(getattr(experiment, section), name)
        if value != wanted:
            raise ValueError(
                f"secure_aggregation.enabled does not go with {key} {value!r}: {why}; leave {key} at "
                f"{wanted!r}, or secure_aggregation out"
            )
    codec = experiment.codec
    if codec.error_feedback or not set(codec.name.split("+")) <= _SUMMED_PARTS:
        feedback = " with codec.error_feedback" if codec.error_feedback else ""
        raise ValueError(
            f'secure_aggregation.enabled does not go with codec.name "{codec.name}"{feedback}: what all '
            "devices of a round keep or turn alike can be summed, what each rounds or chooses for itself "
            "cannot; secure_aggregation.bits says how values are rounded. Set codec.name to random_k, "
            "rotation+random_k or lossless, without error feedback"
        )
    plan = experiment.rounds
    if RoundPlan(cohort=plan.cohort, minimum_ratio=plan.minimum_ratio).minimum < _LEAST_GROUP:
        raise ValueError(
            f"secure_aggregation.enabled needs rounds of {_LEAST_GROUP} reports or more, and rounds.cohort "
            f"{plan.cohort} with rounds.minimum_ratio {plan.minimum_ratio} may have fewer: raise them"
        )


def check_privacy(experiment: "Experiment") -> None:
    """Whether an experiment's models can promise what its ``[privacy]`` says.

    Raises:
        ValueError: something else is asked for that the promise does not bear.
    """
    privacy = experiment.privacy
    if privacy.mechanism == "none":
        return
    if (privacy.mechanism == "distributed") != experiment.secure_aggregation.enabled:
        raise ValueError(
            f'privacy.mechanism "{privacy.mechanism}" with secure_aggregation.enabled '
            f"{str(experiment.secure_aggregation.enabled).lower()}: noise of the devices protects only what a sum "
            'hides, and a server that reads sums alone cannot clip; choose "distributed" with secure aggregation, or '
            '"central" without'
        )
    given = f'privacy.mechanism "{privacy.mechanism}"'
    for refused, reason in (
        (
            experiment.rounds.policy != "synchronous",
            'counts the rounds that a device is in, and a buffer has none: set rounds.policy to "synchronous"',
        ),
        (
            experiment.aggregation.rule != "mean",
            f"puts noise on a sum that no update moves further than its clipped length, which aggregation.rule "
            f'"{experiment.aggregation.rule}" does not keep to: set it to "mean"',
        ),
        (
            experiment.algorithm.name == "scaffold",
            'puts noise on the updates, and algorithm.name "scaffold" reports variates beside them: choose another',
        ),
        (
            experiment.rounds.selection != "uniform",
            "counts on it that who takes part does not depend on anybody's data, and rounds.selection "
            f'"{experiment.rounds.selection}" may choose by losses: set it to "uniform"',
        ),
        (
            experiment.release.gate != "none",
            f'protects the models alone, and release.gate "{experiment.release.gate}" chooses among them by figures of '
            'devices without noise: set it to "none"',
        ),
    ):
        if refused:
            raise ValueError(f"{given} {reason}")
    if privacy.delta >= 1.0 / experiment.fleet.devices:
        raise ValueError(
            f"privacy.delta must be below one over the number of devices, {1.0 / experiment.fleet.devices:.3g}, got "
            f"{privacy.delta:.3g}: at that, giving away one device whole would pass for private; lower it"
        )
    _check_participations(experiment)


def _check_participations(experiment: "Experiment") -> None:
    privacy, cap = experiment.privacy, experiment.privacy.max_participations
    if privacy.noisy and privacy.target_epsilon and privacy.accounting == "participations" and not cap:
        raise ValueError(
            "privacy.target_epsilon needs privacy.max_participations, how many models a device is in at most: "
            "without it the noise would have to be enough for one that is in all; set it"
        )
    devices, rounds = experiment.fleet.devices, experiment.rounds
    if cap and cap * devices < rounds.count * rounds.cohort:
        raise ValueError(
            f"privacy.max_participations {cap} of {devices} devices are {cap * devices} reports, and rounds.count "
            f"{rounds.count} of rounds.cohort {rounds.cohort} need {rounds.count * rounds.cohort}: raise it, or lower "
            "one of them"
        )
