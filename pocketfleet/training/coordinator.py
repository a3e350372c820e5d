"""Rounds as a state machine: who gets an assignment, whose report counts, when a round closes.

It has no IO, clock, log, random draw or tensor: the driver brings devices, assignments and times, and
gets columns of answers; who is chosen at a window's end says the ``Selection`` that it was given. Rules of the
synchronous round:

1. One round is open at all times. It has an index (0, 1, ..., one more at every closing) and the model
   version it trains from (one more only after a closing that succeeded).
2. A check-in is ASSIGNED while the open round's live assignments and accepted reports are together
   fewer than ``RoundPlan.selected``; otherwise it is turned away, ROUND_FULL. Assignment ids are
   0, 1, 2, ... in the order handed out, over all rounds.
3. A round's deadline is the time of its first assignment plus ``deadline_s``, and stays there whatever
   becomes of that assignment. A round without assignments has no deadline and waits for ever.
4. A device whose report the open round accepted is turned away, ALREADY_REPORTED, until the round
   closes; this goes before rule 2. Every turn-away of rules 2 and 4 says to retry at the open round's
   deadline.
5. A device that checks in while it holds a live assignment of the open round has lost it (it
   restarted): that assignment is withdrawn, its slot is free, and the check-in takes it.
6. A deadline closes its round at any time >= the deadline, before whatever happens at that time: a
   report *at* the deadline is too late, a check-in at the deadline meets the next round. The closing's
   time is the deadline, however late the driver says so.
7. The ``cohort``-th accepted report closes the round at that moment: it succeeded. At the deadline a
   round succeeds with at least ``RoundPlan.minimum`` accepted reports; with fewer it is abandoned: its
   accepted reports are listed in the closing but belong in no model.
8. A report on a live assignment of the open round is ACCEPTED, the first time. Another report on an
   accepted assignment is REPEATED, for ever, and not counted. A report on any other assignment of a
   closed round is LATE when accepted reports closed the round, DEADLINE_PASSED when its deadline did.
   WITHDRAWN assignments stay so, and an id never handed out (a negative one too) is UNKNOWN.
   Answers other than ACCEPTED change no assignment.
9. A closed round never changes. Every assignment ends in exactly one state: accepted, withdrawn, or
   left over when its round closed.
10. Elements of a batch are handled one at a time, in the order given: any split into batches gives the
    same answers. Equal times are in order. Time starts at 0 and never decreases, within a batch or over
    calls, with one exception: reports may be earlier than check-ins that were answered before them (a
    simulator settles a round's check-ins at once, then its reports), though never earlier than reports
    or a closing, and none of them may complete the cohort before the open round's latest check-in. The
    order of the calls is what counts: a driver that does so must not bring a device's check-in before
    that device's own earlier report. Wrong input raises ``ValueError`` and nothing has changed.
11. A device may still work on an assignment of a closed round (and will be late) and check in to the
    open one freely; rule 5 looks at the open round only. Silence frees no slot: a device that drops out
    holds its own until it checks in again or the round closes.
12. The open round takes check-ins from its opening time on: the previous round's first assignment plus
    ``interval_s``, or the previous round's closing if that is later; 0 for the first round. An earlier
    check-in is turned away, NOT_YET, to retry at the opening time, and changes nothing else. Reports are
    answered as ever. A round that starts late moves the schedule: no missed interval is made up for.
13. With ``selection_window_s`` above 0, a round's first check-in from its opening time on begins its window. Until the
    window's end, so many seconds later, every check-in is HELD, to come again at that end; a device held twice is held
    once. A device that leaves (``leave_many``) by the end, inclusive, is held no longer. At the end, before whatever
    else happens at that time, ``RoundPlan.selected`` of those held are chosen by the ``Selection``, all if there are no
    more. An assignment is reserved for each, which counts in rule 2: its check-in from then on is ASSIGNED; one that
    leaves before gives it back. The round's deadline counts from the window's end. The others, and those that come
    later, are answered by rule 2: free slots go to those who come first. Where nobody is left to be chosen, the next
    check-in begins a new window.
14. With ``population_cap`` above 0, a device is admitted for ever with its first check-in from a round's opening time
    on, whatever the answer, while fewer are admitted. Any other is turned away, POPULATION_FULL, never to retry, before
    all rules but 12, and changes nothing.
15. With ``max_participations`` above 0, a device whose accepted reports belong to so many rounds that succeeded is
    turned away from then on, PRIVACY_SPENT, never to retry, before all rules but 12, and changes nothing.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pocketfleet.training.admission import Admission
from pocketfleet.training.assignments import COUNTED, LIVE, NOT_YET, Assignments
from pocketfleet.training.checked_columns import (
    checked_devices,
    checked_integers,
    checked_times,
    previous_occurrence,
    require,
)
from pocketfleet.training.round import (
    Bools,
    CheckInCode,
    CheckIns,
    Float64s,
    Int64s,
    ReportCode,
    Reports,
    RoundClosed,
    RoundPlan,
)
from pocketfleet.training.saved_closings import closings_from, saved_closings
from pocketfleet.training.selection import Selection
from pocketfleet.training.selection_window import SelectionWindow

__all__ = ["Coordinator"]

# The attributes that, with the assignments, are the whole open round.
_OPEN_ROUND = (
    *("round", "model_version", "now_s", "reported_s", "opens_s", "opened_s", "asked_s"),
    *("accepted", "withdrawn"),
)


class Coordinator:
    """The open round and the closings nobody has taken yet.

    A batch is cut into segments, within which no round closes or starts to take check-ins and no device
    is assigned twice; a segment is a few array operations. Devices are dense indices, 0 to ``population - 1``.
    """

    def __init__(
        self, plan: RoundPlan, *, population: int, model_version: int = 0, selection: Selection | None = None
    ) -> None:
        if not 1 <= plan.cohort <= population:
            raise ValueError(f"plan.cohort must be 1..{population} (the population), got {plan.cohort}")
        if model_version < 0:
            raise ValueError(f"model_version must be 0 or more, got {model_version}")
        self._plan, self._selected, self._minimum = plan, plan.selected, plan.minimum
        self._assignments = Assignments(population=population)
        self._closings: list[RoundClosed] = []
        # The latest time brought, and the one before which no report may be.
        self._now_s = self._reported_s = 0.0
        self._model_version = model_version
        self.admission = Admission(
            cap=plan.population_cap, population=population, max_participations=plan.max_participations
        )
        self._window = SelectionWindow(length_s=plan.selection_window_s, population=population, selection=selection)
        self._open(0, opens_s=0.0)

    def _open(self, index: int, *, opens_s: float) -> None:
        self._round = index
        self._opens_s = opens_s
        self._opened_s = math.inf
        self._asked_s = -math.inf  # this round's latest check-in
        self._accepted = self._withdrawn = 0
        self._window.reopen()

    @property
    def round(self) -> int:
        """The open round's index."""
        return self._round

    @property
    def model_version(self) -> int:
        """The version the open round trains from: the newest."""
        return self._model_version

    @property
    def now_s(self) -> float:
        """The latest time the driver brought."""
        return self._now_s

    @property
    def opens_s(self) -> float:
        """When the open round takes check-ins: from then on, inclusive; it may be past."""
        return self._opens_s

    @property
    def exhausted(self) -> bool:
        """Whether rule 15 leaves fewer devices than a round needs: no further one succeeds."""
        return self.admission.exhausted(self._minimum)

    @property
    def open_slots(self) -> int:
        """How many more devices that are not in the open round yet it would assign, once ``opens_s`` has come."""
        # Live and accepted together are the assignments that were not withdrawn.
        return self._selected - (self._assignments.handed_out - self._withdrawn) - self._window.reserved

    def next_deadline_s(self) -> float:
        """When the open round closes at the latest; inf while it has no assignment."""
        return self._opened_s + self._plan.deadline_s

    @property
    def window_ends_s(self) -> float:
        """When the open round chooses among those it holds; inf while it holds nobody."""
        return self._window.ends_s

    def _next_s(self) -> float:
        """When the open round next changes by itself: its window ends, or it closes."""
        return min(self._window.ends_s, self.next_deadline_s())

    def check_in_many(self, device: npt.ArrayLike, now_s: npt.ArrayLike) -> CheckIns:
        """Answer devices that ask for work.

        Args:
            device: [n] integers below the population.
            now_s: [n] when each checks in, not decreasing.

        Raises:
            ValueError: a device is out of range, a time is not finite or decreases, or lengths differ.
        """
        times = checked_times(now_s, floor_s=self._now_s)
        devices = checked_devices(device, size=times.size, population=self._assignments.population)
        # A segment from `start` must stop at the first device that was already seen at `start` or after.
        previous = previous_occurrence(devices)
        latest_repeat = None if previous is None else np.maximum.accumulate(previous)
        answers = _turned_away(times.size)
        start = 0
        while start < times.size:
            self._move_to(float(times[start]))
            if times[start] < self._opens_s:
                stop = int(times.searchsorted(self._opens_s))
                self._turn_away_early(slice(start, stop), answers)
            else:
                distinct = times.size if latest_repeat is None else int(latest_repeat.searchsorted(start))
                stop = self._answer(devices[start:distinct], times, start, answers)
                self._asked_s = float(times[stop - 1])
            start = stop
        self._now_s = float(times[-1]) if times.size else self._now_s
        return answers

    def _answer(self, device: Int64s, times: Float64s, start: int, answers: CheckIns) -> int:
        """Rules 13 to 15 for devices [n] without repeats, the first at ``start``; returns how far they reach."""
        allowed = self.admission.allowed(device)
        refused = 0 if allowed is None or allowed[0] else int(allowed.argmax()) or len(device)
        if not refused and self._window.is_open:
            self._window.begin(float(times[start]))
        elif not refused:
            # A round without assignments has free slots, so this check-in is its first assignment.
            self._opened_s = min(self._opened_s, float(times[start]))
        until = int(times.searchsorted(self._next_s()))
        stop = max(start + 1, min(until, start + (refused or len(device))))
        segment, device = slice(start, stop), device[: stop - start]
        allowed = np.ones(len(device), np.bool_) if allowed is None else allowed[: stop - start]
        if self._window.is_open:
            self._window.hold(device[allowed])
            answers.code[segment] = CheckInCode.HELD
            answers.retry_at_s[segment] = self._window.ends_s
            answers.round[segment] = self._round
            answers.model_version[segment] = self._model_version
        else:
            self._check_in(device, allowed, segment, answers)
        self.admission.admit(device[allowed])
        refused_code = np.where(self.admission.spent(device), CheckInCode.PRIVACY_SPENT, CheckInCode.POPULATION_FULL)
        answers.code[segment][~allowed] = refused_code[~allowed]
        answers.retry_at_s[segment][~allowed] = math.inf
        return stop

    def leave_many(self, device: npt.ArrayLike, now_s: npt.ArrayLike) -> None:
        """Devices that were held go away, rule 13; of any other it means nothing.

        Args:
            device: [n] integers below the population.
            now_s: [n] when each leaves, not decreasing.

        Raises:
            ValueError: as ``check_in_many``.
        """
        times = checked_times(now_s, floor_s=self._now_s)
        devices = checked_devices(device, size=times.size, population=self._assignments.population)
        start = 0
        while start < times.size:
            if times[start] > self._window.ends_s:
                self._choose()
            if times[start] >= self.next_deadline_s():
                self._close(self.next_deadline_s(), reason="deadline")
            # By the window's end, inclusive; before a deadline.
            side: Literal["left", "right"] = "left" if self._window.ends_s == math.inf else "right"
            stop = int(times.searchsorted(self._next_s(), side=side))
            self._window.leave(devices[start:stop])
            start = stop
        self._now_s = float(times[-1]) if times.size else self._now_s

    def _turn_away_early(self, segment: slice, answers: CheckIns) -> None:
        """Rule 12 for check-ins before the opening time, whoever they are."""
        answers.code[segment] = CheckInCode.NOT_YET
        answers.retry_at_s[segment] = self._opens_s
        answers.round[segment] = self._round
        answers.model_version[segment] = self._model_version

    def _check_in(self, device: Int64s, allowed: Bools, segment: slice, answers: CheckIns) -> None:
        """Rules 2, 4 and 5 for devices [n] without repeats, from the opening time to before the deadline."""
        state = self._assignments.states(device)
        restarted, reported = state == LIVE, state == COUNTED
        chosen = self._window.is_chosen(device)
        fresh = (state == NOT_YET) & allowed & ~chosen
        # A restart frees a slot and takes it, the chosen have theirs: only fresh devices compete for the open ones.
        assigned = restarted | chosen | (fresh & (fresh.cumsum() <= self.open_slots))

        self._assignments.withdraw(device[restarted])
        self._withdrawn += int(restarted.sum())
        if self._window.reserved:
            self._window.collect(device[chosen])
        ids = self._assignments.hand_out(device[assigned])

        answers.assignment_id[segment][assigned] = ids
        answers.code[segment][assigned] = CheckInCode.ASSIGNED
        answers.code[segment][reported] = CheckInCode.ALREADY_REPORTED
        answers.retry_at_s[segment][~assigned] = self.next_deadline_s()
        answers.round[segment] = self._round
        answers.model_version[segment] = self._model_version

    def live_assignment(self, device: int) -> int:
        """The assignment of the open round that a device holds and has not reported on; -1: none."""
        return self._assignments.live_of(device)

    def report_many(self, assignment_id: npt.ArrayLike, num_examples: npt.ArrayLike, now_s: npt.ArrayLike) -> Reports:
        """Answer devices that bring an update.

        Args:
            assignment_id: [n] any integers; those never handed out are answered UNKNOWN.
            num_examples: [n] examples processed, 1 or more.
            now_s: [n] when each report arrives, not decreasing.

        Raises:
            ValueError: ``num_examples`` is below 1, a time is not finite or decreases, lengths differ, or the cohort
                would be complete before a check-in that was answered.
        """
        times = checked_times(now_s, floor_s=self._reported_s)
        ids = checked_integers("assignment_id", assignment_id, size=times.size)
        examples = checked_integers("num_examples", num_examples, size=times.size)
        require(examples >= 1, examples, "num_examples must be 1 or more")
        answers = Reports(
            code=np.empty(times.size, np.int8),
            weight=np.zeros(times.size, np.float64),
            staleness=np.full(times.size, -1, np.int64),
        )
        # An id that came earlier in the batch is no longer live, whatever it was answered.
        previous = previous_occurrence(ids)
        repeated = None if previous is None else previous >= 0
        start = 0
        while start < times.size:
            self._move_to(float(times[start]))
            stop = int(times.searchsorted(self._next_s()))
            segment = slice(start, stop)
            again = None if repeated is None else repeated[segment]
            stop = start + self._report(ids[segment], again, examples[segment], times, segment, answers)
            if self._accepted == self._plan.cohort:
                self._close(float(times[stop - 1]), reason="cohort")
            start = stop
        if times.size:
            self._reported_s = float(times[-1])
            self._now_s = max(self._now_s, self._reported_s)
        return answers

    def _report(
        self, ids: Int64s, repeated: Bools | None, examples: Int64s, times: Float64s, segment: slice, answers: Reports
    ) -> int:
        """Rule 8 for reports [n], all before the deadline; returns how many came until the round was complete.

        ``repeated`` [n] marks ids that came earlier in the batch, if any did.
        """
        code, staleness = self._assignments.answers(ids, model_version=self._model_version)
        if repeated is not None:
            code[repeated & (code == LIVE)] = COUNTED
        accepted = np.flatnonzero(code == LIVE)[: self._plan.cohort - self._accepted]
        complete = self._accepted + accepted.size == self._plan.cohort
        used = int(accepted[-1]) + 1 if complete else ids.size
        # Only a call's first segment can complete a cohort, later rounds have no assignments: nothing changed yet.
        if complete and times[segment][used - 1] < self._asked_s:
            raise ValueError(
                f"the cohort is complete at {times[segment][used - 1]}, before a check-in that was answered, at "
                f"{self._asked_s}"
            )
        self._accepted += accepted.size

        self._assignments.count(ids[accepted], examples[accepted])
        answers.code[segment][:used] = code[:used]
        answers.weight[segment][accepted] = examples[accepted]
        answers.staleness[segment][:used] = staleness[:used]
        return used

    def advance(self, now_s: float) -> tuple[RoundClosed, ...]:
        """Move time on, which may pass the open round's deadline, and take the closings.

        Returns:
            Every closing since the last call, in order, each handed over once.

        Raises:
            ValueError: ``now_s`` is not finite or decreases.
        """
        self._move_to(float(checked_times([now_s], floor_s=self._now_s)[0]))
        self._now_s = self._reported_s = float(now_s)
        closings, self._closings = tuple(self._closings), []
        return closings

    def _move_to(self, time_s: float) -> None:
        """Rules 6 and 13: end the window, then close the round, if that is due at or before ``time_s``."""
        if time_s >= self._window.ends_s:
            self._choose()
        if time_s >= self.next_deadline_s():
            self._close(self.next_deadline_s(), reason="deadline")

    def _choose(self) -> None:
        """Rule 13, at the window's end."""
        ends_s = self._window.ends_s
        if self._window.choose(count=self._selected, round_index=self._round):
            self._opened_s = ends_s

    def _close(self, time_s: float, *, reason: Literal["cohort", "deadline"]) -> None:
        """Rules 1, 7 and 12: record the outcome, settle what is still live, open the next round."""
        assigned = self._assignments.handed_out
        reports = self._assignments.close(
            ReportCode.LATE if reason == "cohort" else ReportCode.DEADLINE_PASSED, model_version=self._model_version
        )
        closing = RoundClosed(
            round=self._round,
            model_version=self._model_version,
            time_s=time_s,
            opened_s=self._opened_s,
            succeeded=self._accepted >= self._minimum,
            reason=reason,
            assigned=assigned,
            withdrawn=self._withdrawn,
            **reports,
        )
        self._closings.append(closing)
        self._model_version += closing.succeeded
        if closing.succeeded:
            self.admission.count(closing.device)
        self._reported_s = max(self._reported_s, time_s)
        self._open(self._round + 1, opens_s=max(self._opened_s + self._plan.interval_s, time_s))

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Everything, as arrays for a checkpoint: copies, without objects, ready for ``numpy.savez``."""
        return {
            "plan": _plan_column(self._plan),
            "population": np.array(self._assignments.population),
            **self._assignments.state(),
            **saved_closings(self._closings),
            **self.admission.state(),
            **self._window.state(),
            **{name: np.array(getattr(self, f"_{name}")) for name in _OPEN_ROUND},
        }

    @classmethod
    def restore(
        cls, plan: RoundPlan, state: Mapping[str, npt.NDArray[Any]], *, selection: Selection | None = None
    ) -> "Coordinator":
        """The coordinator that ``state`` was taken from, to go on exactly as that one would.

        Raises:
            ValueError: ``plan`` is not the plan the state was saved under.
            KeyError: ``state`` lacks an array.
        """
        if not np.array_equal(state["plan"], _plan_column(plan)):
            raise ValueError(f"the state was saved under another plan, {state['plan'].tolist()}: got {plan}")
        coordinator = cls(plan, population=int(state["population"]), selection=selection)
        coordinator._load(state)
        return coordinator

    def _load(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        for name in _OPEN_ROUND:
            setattr(self, f"_{name}", state[name].item())
        self.admission.restore(state)
        self._window.restore(state)
        self._assignments.restore(state)
        self._closings = closings_from(state)


def _plan_column(plan: RoundPlan) -> Float64s:
    return np.array(dataclasses.astuple(plan), np.float64)


def _turned_away(size: int) -> CheckIns:
    """Answers that turn everybody away, for a segment to fill in."""
    return CheckIns(
        assignment_id=np.full(size, -1, np.int64),
        code=np.full(size, CheckInCode.ROUND_FULL, np.int8),
        retry_at_s=np.full(size, np.nan),
        round=np.empty(size, np.int64),
        model_version=np.empty(size, np.int64),
    )
