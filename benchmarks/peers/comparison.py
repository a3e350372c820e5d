"""Compares runs of one workload: whether they computed the same, and how many times as fast one is as another.

Rules:

1. Every loss curve is held against the plain loop's on one process, round by round, as far as both go. One that is
   further off than ``TOLERANCE`` anywhere computes something else, and there is no comparison.
2. Runs of one system are one row: the median of their throughputs, and their least and greatest.
3. A system that played fewer rounds has its throughput measured and its time for all rounds *computed* from that.

What pocketfleet is to reach is in ``goals``.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from result import Result

__all__ = ["PLAIN", "TOLERANCE", "CurvesDisagreeError", "Row", "disagreement", "rows_of"]

# The loop that all curves are held against.
PLAIN = "plain PyTorch loop, 1 process"
# Relative. Sums in another order drift by rounding alone, far less than this in so few rounds; another batch or another
# weight in the mean shows at once.
TOLERANCE = 0.01


class CurvesDisagreeError(Exception):
    """Two systems did not do the same training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One system on one workload; throughputs are device-steps a second.

    ``stages`` are shares of the wall time, the mean of the runs'; empty where nobody looked.
    """

    workload: str
    system: str
    rounds: int
    all_rounds: int
    runs: int
    steps_per_s: float
    steps_per_s_least: float
    steps_per_s_greatest: float
    all_rounds_s: float
    around_s: float
    disagreement: float
    stages: Mapping[str, float] = field(default_factory=dict)

    @property
    def whole_s(self) -> float:
        """All rounds, and what is around them."""
        return self.all_rounds_s + self.around_s

    @property
    def computed(self) -> bool:
        """Whether ``all_rounds_s`` is computed from fewer rounds."""
        return self.rounds < self.all_rounds


def disagreement(curve: Sequence[float], reference: Sequence[float]) -> float:
    """The greatest relative distance of two loss curves over the rounds that both have.

    Raises:
        ValueError: they share no round after the initial loss.
    """
    shared = min(len(curve), len(reference))
    if shared < 2:
        raise ValueError(f"loss curves of {len(curve)} and {len(reference)} values share no round")
    # Of NumPy's maximum, not Python's: one value that is not a number makes the answer none.
    return float(np.max(np.abs(np.array(curve[:shared]) / np.array(reference[:shared]) - 1.0)))


def rows_of(results: Iterable[Result], *, all_rounds: int) -> list[Row]:
    """One row a system, in the order in which they first ran.

    Args:
        results: of one workload, the plain loop's among them.
        all_rounds: that the workload has.

    Raises:
        CurvesDisagreeError: a curve is further than ``TOLERANCE`` from the plain loop's.
    """
    by_system: dict[str, list[Result]] = {}
    for result in results:
        by_system.setdefault(result.system, []).append(result)
    reference = max(by_system[PLAIN], key=lambda result: len(result.losses)).losses
    return [_row(system, runs, reference, all_rounds) for system, runs in by_system.items()]


def _row(system: str, runs: Sequence[Result], reference: Sequence[float], all_rounds: int) -> Row:
    worst = float(np.max([disagreement(run.losses, reference) for run in runs]))
    # Not a number is not within it either.
    if not worst <= TOLERANCE:
        raise CurvesDisagreeError(
            f"{runs[0].workload}: the losses of {system} are up to {worst:.2%} from those of {PLAIN}, allowed is "
            f"{TOLERANCE:.0%}: they did not train the same"
        )
    speeds = [run.steps_per_s for run in runs]
    median = statistics.median(speeds)
    steps_a_round = runs[0].device_steps / runs[0].rounds
    return Row(
        workload=runs[0].workload,
        system=system,
        rounds=runs[0].rounds,
        all_rounds=all_rounds,
        runs=len(runs),
        steps_per_s=median,
        steps_per_s_least=min(speeds),
        steps_per_s_greatest=max(speeds),
        all_rounds_s=all_rounds * steps_a_round / median,
        around_s=statistics.median(run.around_s for run in runs),
        disagreement=worst,
        stages={stage: statistics.fmean(run.stages[stage] for run in runs) for stage in runs[0].stages},
    )
