"""What a round is planned to be, what devices are told in it, and how it ended: plain data.

The rules that produce these answers are in ``pocketfleet.training.coordinator``, of a buffer's in
``pocketfleet.training.buffered_coordinator``.
"""

import enum
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = [
    "REFUSALS",
    "BufferedPlan",
    "CheckInCode",
    "CheckIns",
    "ReportCode",
    "Reports",
    "RoundClosed",
    "RoundPlan",
]

Bools = npt.NDArray[np.bool_]
Int8s = npt.NDArray[np.int8]
Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlan:
    """How many reports a round wants, of how many devices, how long it waits, and when the next may start.

    Attributes:
        cohort: accepted reports that close a round, 1 or more.
        over_selection: devices asked per report wanted, 1 or more.
        minimum_ratio: share of ``cohort``, 0 to 1, that still makes a model at the deadline.
        deadline_s: seconds a round waits after its first assignment.
        interval_s: seconds from a round's first assignment to the earliest first assignment of the next;
            0: at once, when the round closes.
        pace_s: a round's devices are told to come spread evenly over so long; 0: all at once when it opens. The
            coordinator answers whoever comes; it is for those that tell devices when to come.
        selection_window_s: seconds from a round's first check-in in which devices wait, to be chosen from at its end;
            0: first come, first assigned.
        population_cap: how many distinct devices are ever admitted; 0: all.
        max_participations: how many models a device's reports are in at most; 0: any number.
    """

    cohort: int
    # 6 to 10 % of devices drop out, and stragglers are discarded, hence 130 %: Bonawitz et al. 2019,
    # "Towards federated learning at scale", arXiv:1902.01046, section 9.
    over_selection: float = 1.3
    # Our choice, no published figure: throwing away more than half a cohort's work is the greater loss.
    minimum_ratio: float = 0.6
    # Our choice, no published figure: ten minutes, several times what download, training and upload take.
    deadline_s: float = 600.0
    # Our choice, no published default: without a schedule the next round starts as soon as one closes.
    interval_s: float = 0.0
    # Our choice: without pace steering, which suits fleets of some thousands.
    pace_s: float = 0.0
    # Our choice: without a window, as a fleet of volunteers is served; what a choice needs is up to its maker.
    selection_window_s: float = 0.0
    population_cap: int = 0
    max_participations: int = 0

    def __post_init__(self) -> None:
        if not (isinstance(self.cohort, int) and self.cohort >= 1):
            raise ValueError(f"cohort must be an integer, 1 or more, got {self.cohort!r}")
        if not 1 <= self.over_selection < math.inf:
            raise ValueError(f"over_selection must be 1 or more (and finite), got {self.over_selection!r}")
        if not 0 <= self.minimum_ratio <= 1:
            raise ValueError(f"minimum_ratio must be 0..1 (a share of the cohort), got {self.minimum_ratio!r}")
        if not 0 < self.deadline_s < math.inf:
            raise ValueError(f"deadline_s must be more than 0 seconds (and finite), got {self.deadline_s!r}")
        if not 0 <= self.interval_s < math.inf:
            raise ValueError(f"interval_s must be 0 seconds or more (and finite), got {self.interval_s!r}")
        if not 0 <= self.pace_s < math.inf:
            raise ValueError(f"pace_s must be 0 seconds or more (and finite), got {self.pace_s!r}")
        if not 0 <= self.selection_window_s < math.inf:
            raise ValueError(
                f"selection_window_s must be 0 seconds or more (and finite), got {self.selection_window_s!r}"
            )
        cap = self.population_cap
        if not (isinstance(cap, int) and (cap == 0 or cap >= self.cohort)):
            raise ValueError(
                f"population_cap must be 0 (none) or an integer, the cohort ({self.cohort}) or more, got {cap!r}"
            )
        if not (isinstance(self.max_participations, int) and self.max_participations >= 0):
            raise ValueError(
                f"max_participations must be 0 (any number) or an integer above it, got {self.max_participations!r}"
            )

    @property
    def selected(self) -> int:
        """Devices a round has at work or counted at most: ``ceil(cohort * over_selection)``."""
        return _ceil_product(self.cohort, self.over_selection)

    @property
    def minimum(self) -> int:
        """Accepted reports with which a round succeeds at its deadline, at least 1."""
        return max(1, _ceil_product(self.cohort, self.minimum_ratio))


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferedPlan:
    """How many devices train at any time, how many reports make a model version, and how old they may be.

    Attributes:
        buffer: accepted reports that make a version, 1 or more; FedBuff's K.
        concurrency: devices at work at most, 1 or more.
        max_staleness: versions published since an assignment, beyond which its report is rejected; 0 or more.
        deadline_s: seconds after which an assignment is given up.
    """

    buffer: int
    concurrency: int
    max_staleness: int
    deadline_s: float

    def __post_init__(self) -> None:
        for name, least in (("buffer", 1), ("concurrency", 1), ("max_staleness", 0)):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= least):
                raise ValueError(f"{name} must be an integer, {least} or more, got {value!r}")
        if not 0 < self.deadline_s < math.inf:
            raise ValueError(f"deadline_s must be more than 0 seconds (and finite), got {self.deadline_s!r}")


class CheckInCode(enum.IntEnum):
    """What a device that checks in is told."""

    ASSIGNED = 0
    ROUND_FULL = 1
    ALREADY_REPORTED = 2
    NOT_YET = 3
    HELD = 4
    POPULATION_FULL = 5
    PRIVACY_SPENT = 6


# Who is told so never takes part again.
REFUSALS = (CheckInCode.POPULATION_FULL, CheckInCode.PRIVACY_SPENT)


class ReportCode(enum.IntEnum):
    """What a device that reports is told."""

    ACCEPTED = 0
    REPEATED = 1
    LATE = 2
    DEADLINE_PASSED = 3
    WITHDRAWN = 4
    UNKNOWN = 5
    STALE = 6
    APP_FAILED = 7  # the report says that the app on the device raised, and holds nothing else


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckIns:
    """Answers to a batch of check-ins, columns [n].

    Attributes:
        assignment_id: -1 when turned away.
        code: a ``CheckInCode``.
        retry_at_s: when a device turned away may come back, a held one shall; nan when assigned; inf: never.
        round: the open round, also when turned away.
        model_version: the version that round trains from.
    """

    assignment_id: Int64s
    code: Int8s
    retry_at_s: Float64s
    round: Int64s
    model_version: Int64s


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reports:
    """Answers to a batch of reports, columns [n].

    Attributes:
        code: a ``ReportCode``.
        weight: the report's ``num_examples`` when accepted, else 0.
        staleness: model versions published since the assignment was handed out; -1 when unknown.
            An accepted report of a synchronous round has 0.
    """

    code: Int8s
    weight: Float64s
    staleness: Int64s


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoundClosed:
    """A round's outcome; its arrays are read-only.

    Attributes:
        round: the round's index.
        model_version: the version it trained *from*.
        time_s: when it closed.
        opened_s: the time of its first assignment, from which its deadline and the interval to the next
            round count.
        succeeded: whether its reports make the next model version; False: abandoned.
        reason: what closed it: "cohort" (enough reports), "deadline", or "buffer" (a full one).
        assignment_id: the accepted reports' assignments [k], in order of device index.
        device: their devices [k], increasing.
        num_examples: the examples each processed [k].
        assigned: assignments the round handed out.
        withdrawn: those of them that were withdrawn.
    """

    round: int
    model_version: int
    time_s: float
    opened_s: float
    succeeded: bool
    reason: Literal["cohort", "deadline", "buffer"]
    assignment_id: Int64s
    device: Int64s
    num_examples: Int64s
    assigned: int
    withdrawn: int

    def __post_init__(self) -> None:
        for column in (self.assignment_id, self.device, self.num_examples):
            column.flags.writeable = False


def _ceil_product(count: int, ratio: float) -> int:
    # The ratio as the decimal that was written: 100 * 1.1 is 110 here, in floats a little more.
    return math.ceil(count * Fraction(str(ratio)))
