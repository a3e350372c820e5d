"""Whether a version of the model may be used: what devices' evaluations say of it, beside the version in use.

Rules:

1. The metric of a version is its mean over all held-out examples of the devices that reported, a device's at most
   ``max_held_out`` of them. It does not depend on the order of the reports.
2. A metric that is no finite number on some device is the worst there is.
3. A version passes when its metric is no worse than the released version's by more than ``tolerance_ratio`` of that,
   and no worse than ``bound``. Both are measured by the same devices on the same examples.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

__all__ = ["Measured", "Reason", "ReleasePlan", "ReleaseState", "Stage", "Verdict", "failing", "verdict_of"]

# Means of more are not told apart from infinite ones: sums stay within the range of doubles.
_MOST = 1e300


class ReleaseState(StrEnum):
    """What a version is; see the rules of ``release_gate``."""

    WAITING = "waiting"
    SUPERSEDED = "superseded"
    CANDIDATE = "candidate"
    HELD_BACK = "held_back"
    CANARY = "canary"
    ROLLED_BACK = "rolled_back"
    RELEASED = "released"
    RETIRED = "retired"


Stage = Literal[ReleaseState.CANDIDATE, ReleaseState.CANARY]
Reason = Literal["made", "newer", "passed", "worse", "beyond_bound", "too_few", "administrator"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePlan:
    """What the gate keeps to.

    Attributes:
        seed: of the shares' draws.
        evaluation_reports: that judge a candidate.
        canary_ratio: share of the devices that use a canary; 0: no second stage.
        canary_reports: that judge a canary.
        over_selection: devices asked a report wanted, at least 1.
        minimum_ratio: of the reports wanted, that suffice at the deadline.
        report_within_s: after which an asked device is counted no more.
        deadline_s: of a stage, from its beginning.
        lower_is_better: whether less of the metric is better.
        tolerance_ratio: see rule 3.
        bound: the worst value of the metric that may be released; ``None``: any.
        max_held_out: examples that a device's evaluation counts for at most; 0: any.
    """

    seed: int
    evaluation_reports: int
    canary_ratio: float
    canary_reports: int
    over_selection: float
    minimum_ratio: float
    report_within_s: float
    deadline_s: float
    lower_is_better: bool = True
    tolerance_ratio: float = 0.0
    bound: float | None = None
    max_held_out: int = 0

    def wanted(self, stage: Stage) -> int:
        """Reports that judge a stage."""
        return self.evaluation_reports if stage is ReleaseState.CANDIDATE else self.canary_reports


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A device's means of the metric over ``num_held_out`` examples; not finite: the worst there is."""

    num_held_out: int
    tried: float
    released: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a stage's reports say: how many, and both versions' means of the metric (NaN without reports)."""

    reports: int
    tried: float
    released: float


def verdict_of(reports: Collection[Measured], plan: ReleasePlan) -> Verdict:
    """Rules 1 and 2."""
    most = plan.max_held_out
    weights = [min(one.num_held_out, most) if most else one.num_held_out for one in reports]
    tried, released = ([getattr(one, name) for one in reports] for name in ("tried", "released"))
    return Verdict(
        reports=len(reports), tried=_mean(tried, weights, plan=plan), released=_mean(released, weights, plan=plan)
    )


def failing(verdict: Verdict, plan: ReleasePlan) -> Reason | None:
    """Rule 3: why a version fails; ``None``: it passes."""
    sign = 1.0 if plan.lower_is_better else -1.0
    tried, released = sign * verdict.tried, sign * verdict.released
    if not math.isfinite(tried):
        return "worse"
    if plan.bound is not None and tried > sign * plan.bound:
        return "beyond_bound"
    # Against one that is infinitely bad anything is better.
    if math.isfinite(released) and tried > released + plan.tolerance_ratio * abs(released):
        return "worse"
    return None


def _mean(values: Sequence[float], weights: Sequence[int], *, plan: ReleasePlan) -> float:
    if not values:
        return math.nan
    # NaN is not within either.
    if not all(abs(value) <= _MOST for value in values):
        return math.inf if plan.lower_is_better else -math.inf
    total = sum(weights)
    # The sum is exact before it is rounded. Shares first, for the same reason as ``_MOST``.
    return math.fsum(value * (weight / total) for value, weight in zip(values, weights, strict=True))
