"""From the sections that say what becomes of updates to the objects that they name."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pocketfleet.device_sim.secure_group import SecureGroup
from pocketfleet.device_sim.secure_sum import KeptUpdates
from pocketfleet.errors import InputError
from pocketfleet.experiment import Experiment
from pocketfleet.training.aggregation_by_rule import make_aggregator
from pocketfleet.training.codec import LosslessCodec
from pocketfleet.training.privacy.secure_aggregation.messages import KEYS_BYTES
from pocketfleet.training.privacy.secure_aggregation.secure_plan import SecurePlan
from pocketfleet.training.update import Update

__all__ = ["aggregator_factory", "report_bytes", "secure_group_of", "secure_plan"]


def aggregator_factory(experiment: Experiment, folder: Path | None = None) -> Callable[[], Any]:
    """What makes an empty aggregator of the experiment's rule; see ``aggregation_by_rule.make_aggregator``.

    Under secure aggregation updates are kept for the sum, see ``device_sim.secure_sum``.
    """
    if experiment.secure_aggregation.enabled:
        return KeptUpdates
    return functools.partial(make_aggregator, **experiment.aggregation.model_dump(), folder=folder)


def secure_plan(experiment: Experiment, report: Update) -> SecurePlan | None:
    """How the experiment's rounds make sums that hide their parts; ``None``: reports are updates.

    Raises:
        InputError: updates such as ``report`` cannot be summed.
    """
    section = experiment.secure_aggregation
    if not section.enabled:
        return None
    plan = SecurePlan(
        seed=experiment.seed,
        value_range=section.value_range,
        bits=section.bits,
        max_weight=section.max_examples,
        cohort=experiment.rounds.cohort,
        rotation=False,
        ratio=1.0,
        like=report,
        corrupt_ratio=section.corrupt_ratio,
        dropout_ratio=section.dropout_ratio,
        stage_deadline_s=section.stage_deadline_s,
    )
    try:
        plan.settings  # noqa: B018 - made once, to be refused here
    except ValueError as exc:
        raise InputError(f"secure_aggregation: {exc}; lower bits, max_examples or rounds.cohort") from exc
    return plan


def secure_group_of(plan: SecurePlan) -> Callable[[int, int], SecureGroup]:
    """What holds in a group of so many, of that round."""
    return lambda members, round_index: SecureGroup(plan.settings, plan.neighbourhood(members, round_index))


def report_bytes(experiment: Experiment, report: Update) -> int:
    """How long a report's body is: an update as the codec writes it, or a device's public keys."""
    if experiment.secure_aggregation.enabled:
        return KEYS_BYTES
    return LosslessCodec().encoded_bytes(report)
