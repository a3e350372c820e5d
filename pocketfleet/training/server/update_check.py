"""Whether a report is one: what it says of its work, and whether its file is an update of this model."""

import math
from pathlib import Path

import torch

from pocketfleet.training.codec import Codec
from pocketfleet.training.privacy.secure_aggregation.masks import check_keys
from pocketfleet.training.privacy.secure_aggregation.messages import SecureAggregationError
from pocketfleet.training.server.protocol import ReportFacts
from pocketfleet.training.server.refusal import RefusedError
from pocketfleet.training.server.service_plan import ServicePlan
from pocketfleet.training.update import Update, UpdateError

__all__ = ["check_facts", "check_report_keys", "checked_update"]


def check_facts(plan: ServicePlan, facts: ReportFacts) -> None:
    """Whether what a report says of its work can be.

    Raises:
        RefusedError: it cannot.
    """
    if plan.secure is not None:
        if facts != ReportFacts.of_nothing():
            raise RefusedError(
                422,
                "wrong_facts",
                "a report says nothing of the work where sums hide their parts",
            )
        return
    if facts.num_examples > facts.steps * plan.batch_size:
        raise RefusedError(
            422,
            "wrong_facts",
            f"{facts.steps} steps of at most {plan.batch_size} examples process no {facts.num_examples}",
        )
    if plan.steps and facts.steps > plan.steps:
        raise RefusedError(422, "wrong_facts", f"the assignment was {plan.steps} steps, got {facts.steps}")
    most = plan.limits.max_num_examples
    if most and facts.num_examples > most:
        raise RefusedError(422, "wrong_facts", f"a report counts for {most} examples at most, got {facts.num_examples}")


def check_report_keys(path: Path) -> None:
    """Whether a file holds public keys that others can agree with: with one that does not, a group has no sum.

    Raises:
        RefusedError: it does not.
        OSError: the file cannot be read.
    """
    try:
        check_keys(path.read_bytes())
    except SecureAggregationError as exc:
        raise RefusedError(422, "no_keys", f"the body holds no public keys: {exc}") from exc


def checked_update(path: Path, *, codec: Codec, like: Update, shared_seed: int, max_norm: float) -> Update:
    """The update in a file.

    Args:
        path: of the file.
        codec: that it is written in.
        like: names, shapes and types.
        shared_seed: of the version that it was trained from, see ``codec.seeds``.
        max_norm: of the delta as one vector; 0: any.

    Raises:
        RefusedError: it is none, holds values that are no finite numbers, or is longer than allowed.
        OSError: the file cannot be read.
    """
    try:
        update = codec.decode(path.read_bytes(), like, shared_seed)
    except UpdateError as exc:
        raise RefusedError(422, "no_update", f"the body is no update of this model: {exc}") from exc
    if not update.finite:
        raise RefusedError(422, "not_finite", "the update holds values that are no finite numbers: nothing was counted")
    norm = math.sqrt(sum(float(value.to(torch.float64).square().sum()) for value in update.delta.values()))
    if max_norm and norm > max_norm:
        raise RefusedError(422, "too_far", f"the update's norm is {norm:.6g}, at most {max_norm:g} is taken")
    return update
