"""Buffered asynchronous rounds as a state machine: who trains, whose report counts, when a version is made.

After Nguyen et al. 2022, "Federated learning with buffered asynchronous aggregation", arXiv:2106.06639: devices
train all the time, and every ``buffer`` reports make a model version. Like the synchronous ``Coordinator`` it has
no IO, clock, log, random draw or tensor. Rules:

1. One buffer is open at all times. Its index is the number of buffers filled before it, and so the number of model
   versions made.
2. A check-in is ASSIGNED the newest version while fewer than ``concurrency`` assignments are live; otherwise it is
   turned away, ROUND_FULL. Assignment ids are 0, 1, 2, ... in the order handed out.
3. An assignment is given up ``deadline_s`` after it was handed out: from then on its slot is free, and its report
   is DEADLINE_PASSED. A report *at* the deadline is too late, a check-in at it finds the slot.
4. A device whose report the open buffer holds is turned away, ALREADY_REPORTED, until the buffer is full: a buffer
   holds one report a device. Every turn-away of rules 2 and 4 says to retry at the earliest deadline of a live
   assignment; of rule 4 with none live, after another ``deadline_s``.
5. A device that checks in while it holds a live assignment has lost it (it restarted): that one is WITHDRAWN, and
   the check-in takes its slot. This goes before rules 2 and 4.
6. A report's staleness is the number of versions made since its assignment. A report on a live assignment is
   ACCEPTED into the buffer if that is at most ``max_staleness``, else it is STALE; its slot is free either way.
7. The ``buffer``-th accepted report makes the next version at that moment; the next buffer opens.
8. Another report on an accepted assignment is REPEATED; one on a stale, withdrawn or given-up assignment is
   answered that, for ever; an id never handed out is UNKNOWN. None of them changes anything.
9. Rows of a batch are handled one at a time, in the order given. Time starts at 0 and never decreases, within a
   batch or over calls. Wrong input raises ``ValueError`` and nothing has changed.
"""

import heapq
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketfleet.training.checked_columns import checked_devices, checked_integers, checked_times, require
from pocketfleet.training.round import BufferedPlan, CheckInCode, CheckIns, ReportCode, Reports, RoundClosed

__all__ = ["BufferedCoordinator"]

_LIVE, _COUNTED = int(ReportCode.ACCEPTED), int(ReportCode.REPEATED)
# An assignment's row in a checkpoint; ``answer`` is the code that its next report gets.
_ASSIGNMENT = np.dtype(
    [
        ("device", np.int64),
        ("model_version", np.int64),
        ("num_examples", np.int64),
        ("deadline_s", np.float64),
        ("answer", np.int8),
    ]
)
_NUMBERS = ("now_s", "opened_s", "model_version", "assigned", "withdrawn")


class BufferedCoordinator:
    """The live assignments, the open buffer and the closings nobody has taken yet."""

    def __init__(self, plan: BufferedPlan, *, population: int) -> None:
        if plan.buffer > population:
            raise ValueError(f"plan.buffer must be 1..{population} (the population), got {plan.buffer}")
        self._plan = plan
        self._population = population
        self._assignments: list[list[Any]] = []  # rows of _ASSIGNMENT
        self._live: dict[int, int] = {}  # device: assignment id
        self._buffer: dict[int, int] = {}  # device: assignment id of its accepted report
        self._deadlines: list[tuple[float, int]] = []  # a heap, some of them no longer live
        self._closings: list[RoundClosed] = []
        self._now_s = 0.0
        self._opened_s = math.inf
        self._model_version = self._assigned = self._withdrawn = 0

    @property
    def round(self) -> int:
        """The open buffer's index."""
        return self._model_version

    @property
    def model_version(self) -> int:
        """The newest version."""
        return self._model_version

    @property
    def now_s(self) -> float:
        """The latest time the driver brought."""
        return self._now_s

    @property
    def open_slots(self) -> int:
        """How many more devices would be assigned now."""
        return self._plan.concurrency - len(self._live)

    @property
    def reports_wanted(self) -> int:
        """Accepted reports until the buffer is full, 1 or more."""
        return self._plan.buffer - len(self._buffer)

    def next_deadline_s(self) -> float:
        """When the first live assignment is given up; inf without one."""
        while self._deadlines and self._assignments[self._deadlines[0][1]][4] != _LIVE:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else math.inf

    def live_assignment(self, device: int) -> int:
        """The assignment that a device holds and has not reported on; -1: none."""
        return self._live.get(device, -1)

    def check_in_many(self, device: npt.ArrayLike, now_s: npt.ArrayLike) -> CheckIns:
        """Answer devices that ask for work; as ``Coordinator.check_in_many``."""
        times = checked_times(now_s, floor_s=self._now_s)
        devices = checked_devices(device, size=times.size, population=self._population)
        rows = [self._check_in(*row) for row in zip(devices.tolist(), times.tolist(), strict=True)]
        columns = list(zip(*rows, strict=True)) if rows else [()] * 5
        return CheckIns(
            assignment_id=np.array(columns[0], np.int64),
            code=np.array(columns[1], np.int8),
            retry_at_s=np.array(columns[2], np.float64),
            round=np.array(columns[3], np.int64),
            model_version=np.array(columns[4], np.int64),
        )

    def _check_in(self, device: int, now_s: float) -> tuple[int, int, float, int, int]:
        self._move_to(now_s)
        version = self._model_version
        if device in self._live:
            self._assignments[self._live.pop(device)][4] = int(ReportCode.WITHDRAWN)
            self._withdrawn += 1
        elif device in self._buffer or self.open_slots == 0:
            code = CheckInCode.ALREADY_REPORTED if device in self._buffer else CheckInCode.ROUND_FULL
            retry_s = self.next_deadline_s()
            return -1, int(code), retry_s if retry_s < math.inf else now_s + self._plan.deadline_s, version, version
        number, deadline_s = len(self._assignments), now_s + self._plan.deadline_s
        self._assignments.append([device, version, 0, deadline_s, _LIVE])
        heapq.heappush(self._deadlines, (deadline_s, number))
        self._live[device] = number
        self._opened_s = min(self._opened_s, now_s)
        self._assigned += 1
        return number, int(CheckInCode.ASSIGNED), math.nan, version, version

    def report_many(self, assignment_id: npt.ArrayLike, num_examples: npt.ArrayLike, now_s: npt.ArrayLike) -> Reports:
        """Answer devices that bring an update; as ``Coordinator.report_many``, and ``weight`` knows no staleness."""
        times = checked_times(now_s, floor_s=self._now_s)
        ids = checked_integers("assignment_id", assignment_id, size=times.size)
        examples = checked_integers("num_examples", num_examples, size=times.size)
        require(examples >= 1, examples, "num_examples must be 1 or more")
        rows = [self._report(*row) for row in zip(ids.tolist(), examples.tolist(), times.tolist(), strict=True)]
        columns = list(zip(*rows, strict=True)) if rows else [()] * 3
        return Reports(
            code=np.array(columns[0], np.int8),
            weight=np.array(columns[1], np.float64),
            staleness=np.array(columns[2], np.int64),
        )

    def _report(self, number: int, num_examples: int, now_s: float) -> tuple[int, float, int]:
        self._move_to(now_s)
        if not 0 <= number < len(self._assignments):
            return int(ReportCode.UNKNOWN), 0.0, -1
        row = self._assignments[number]
        staleness = self._model_version - row[1]
        if row[4] != _LIVE:
            return row[4], 0.0, staleness
        del self._live[row[0]]
        if staleness > self._plan.max_staleness:
            row[4] = int(ReportCode.STALE)
            return row[4], 0.0, staleness
        row[2], row[4] = num_examples, _COUNTED
        self._buffer[row[0]] = number
        if len(self._buffer) == self._plan.buffer:
            self._close(now_s)
        return int(ReportCode.ACCEPTED), float(num_examples), staleness

    def advance(self, now_s: float) -> tuple[RoundClosed, ...]:
        """Move time on and take the closings since the last call, in order.

        Raises:
            ValueError: ``now_s`` is not finite or decreases.
        """
        self._move_to(float(checked_times([now_s], floor_s=self._now_s)[0]))
        closings, self._closings = tuple(self._closings), []
        return closings

    def _move_to(self, time_s: float) -> None:
        """Rule 3: give up what is due."""
        while self.next_deadline_s() <= time_s:
            given_up = self._assignments[self._deadlines[0][1]]
            given_up[4] = int(ReportCode.DEADLINE_PASSED)
            del self._live[given_up[0]]
        self._now_s = time_s

    def _close(self, time_s: float) -> None:
        device = sorted(self._buffer)
        numbers = [self._buffer[each] for each in device]
        self._closings.append(
            RoundClosed(
                round=self.round,
                model_version=self._model_version,
                time_s=time_s,
                opened_s=self._opened_s,
                succeeded=True,
                reason="buffer",
                assignment_id=np.array(numbers, np.int64),
                device=np.array(device, np.int64),
                num_examples=np.array([self._assignments[number][2] for number in numbers], np.int64),
                assigned=self._assigned,
                withdrawn=self._withdrawn,
            )
        )
        self._model_version += 1
        self._buffer = {}
        self._opened_s = time_s
        self._assigned = self._withdrawn = 0

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Everything, as arrays for a checkpoint.

        Raises:
            ValueError: there are closings that nobody has taken.
        """
        if self._closings:
            raise ValueError(f"{len(self._closings)} closings were not taken: call advance first")
        return {
            "plan": _plan_column(self._plan),
            "population": np.array(self._population),
            "assignments": np.array([tuple(row) for row in self._assignments], _ASSIGNMENT),
            "buffer": np.array(sorted(self._buffer.values()), np.int64),
            **{name: np.array(getattr(self, f"_{name}")) for name in _NUMBERS},
        }

    @classmethod
    def restore(cls, plan: BufferedPlan, state: Mapping[str, npt.NDArray[Any]]) -> "BufferedCoordinator":
        """The coordinator that ``state`` was taken from, to go on exactly as that one would.

        Raises:
            ValueError: ``plan`` is not the plan the state was saved under.
        """
        if not np.array_equal(state["plan"], _plan_column(plan)):
            raise ValueError(f"the state was saved under another plan, {state['plan'].tolist()}: got {plan}")
        coordinator = cls(plan, population=int(state["population"]))
        coordinator._load(state)
        return coordinator

    def _load(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        for name in _NUMBERS:
            setattr(self, f"_{name}", state[name].item())
        self._assignments = [list(row) for row in state["assignments"].tolist()]
        live = [number for number, row in enumerate(self._assignments) if row[4] == _LIVE]
        self._live = {self._assignments[number][0]: number for number in live}
        self._buffer = {self._assignments[number][0]: number for number in state["buffer"].tolist()}
        self._deadlines = [(self._assignments[number][3], number) for number in live]
        heapq.heapify(self._deadlines)


def _plan_column(plan: BufferedPlan) -> npt.NDArray[np.float64]:
    return np.array([plan.buffer, plan.concurrency, plan.max_staleness, plan.deadline_s], np.float64)
