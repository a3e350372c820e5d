"""The synchronous round, one object per assignment: slow, obvious, the oracle of the fast coordinator.

Rule numbers are those of ``pocketfleet.training.coordinator``.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pocketfleet.training.round import RoundPlan
from pocketfleet.training.selection import Selection


@dataclass
class Assignment:
    assignment_id: int
    device: int
    model_version: int
    state: str = "live"  # then "accepted", "withdrawn", or left over: "late", "deadline_passed"
    num_examples: int = 0


@dataclass
class Round:
    index: int
    model_version: int
    opened_s: float | None = None
    live: dict[int, Assignment] = field(default_factory=dict)  # by device
    accepted: dict[int, Assignment] = field(default_factory=dict)  # by device
    withdrawn: list[Assignment] = field(default_factory=list)
    window_ends_s: float | None = None
    has_chosen: bool = False
    held: set[int] = field(default_factory=set)
    chosen: set[int] = field(default_factory=set)


class PlainCoordinator:
    def __init__(self, plan: RoundPlan, *, model_version: int = 0, selection: Selection | None = None) -> None:
        self.plan, self.selection = plan, selection
        self.admitted: set[int] = set()
        self.models: dict[int, int] = {}  # by device: those that it is in
        self.selected, self.minimum = plan.selected, plan.minimum
        self.open = Round(0, model_version)
        self.assignments: list[Assignment] = []
        self.closings: list[dict[str, Any]] = []

    def deadline_s(self) -> float:
        return math.inf if self.open.opened_s is None else self.open.opened_s + self.plan.deadline_s  # rule 3

    def opens_s(self) -> float:  # rule 12
        if not self.closings:
            return 0.0
        previous = self.closings[-1]
        on_schedule: float = previous["opened_s"] + self.plan.interval_s
        closed: float = previous["time_s"]
        return max(on_schedule, closed)

    def slots(self) -> int:
        return self.selected - len(self.open.live) - len(self.open.accepted) - len(self.open.chosen)

    def exhausted(self, population: int) -> bool:  # rule 15, and 14
        if not self.plan.max_participations:
            return False
        able = [device for device in range(population) if self.models.get(device, 0) < self.plan.max_participations]
        if self.plan.population_cap:
            strangers = [device for device in able if device not in self.admitted]
            refused = max(0, len(strangers) - (self.plan.population_cap - len(self.admitted)))
            return len(able) - refused < self.minimum
        return len(able) < self.minimum

    def check_in(self, device: int, now_s: float) -> tuple[int, str, float | None, int, int]:
        self.advance(now_s)
        if now_s < self.opens_s():  # rule 12
            return (-1, "NOT_YET", self.opens_s(), self.open.index, self.open.model_version)
        if self.plan.max_participations and self.models.get(device, 0) >= self.plan.max_participations:  # rule 15
            return (-1, "PRIVACY_SPENT", math.inf, self.open.index, self.open.model_version)
        if self.plan.population_cap and device not in self.admitted:  # rule 14
            if len(self.admitted) == self.plan.population_cap:
                return (-1, "POPULATION_FULL", math.inf, self.open.index, self.open.model_version)
            self.admitted.add(device)
        if self.plan.selection_window_s and not self.open.has_chosen:  # rule 13
            if self.open.window_ends_s is None:
                self.open.window_ends_s = now_s + self.plan.selection_window_s
            self.open.held.add(device)
            return (-1, "HELD", self.open.window_ends_s, self.open.index, self.open.model_version)
        if device in self.open.accepted:  # rule 4
            return (-1, "ALREADY_REPORTED", self.deadline_s(), self.open.index, self.open.model_version)
        if device in self.open.live:  # rule 5
            lost = self.open.live.pop(device)
            lost.state = "withdrawn"
            self.open.withdrawn.append(lost)
        if device in self.open.chosen:  # rule 13
            self.open.chosen.remove(device)
        elif self.slots() == 0:  # rule 2
            return (-1, "ROUND_FULL", self.deadline_s(), self.open.index, self.open.model_version)
        if self.open.opened_s is None:
            self.open.opened_s = now_s
        assignment = Assignment(len(self.assignments), device, self.open.model_version)
        self.assignments.append(assignment)
        self.open.live[device] = assignment
        return (assignment.assignment_id, "ASSIGNED", None, self.open.index, self.open.model_version)

    def report(self, assignment_id: int, num_examples: int, now_s: float) -> tuple[str, float, int]:
        self.advance(now_s)
        if not 0 <= assignment_id < len(self.assignments):
            return ("UNKNOWN", 0.0, -1)
        assignment = self.assignments[assignment_id]
        staleness = self.open.model_version - assignment.model_version
        if assignment.state == "accepted":
            return ("REPEATED", 0.0, staleness)
        if assignment.state != "live":
            return (assignment.state.upper(), 0.0, staleness)
        del self.open.live[assignment.device]
        self.open.accepted[assignment.device] = assignment
        assignment.state, assignment.num_examples = "accepted", num_examples
        if len(self.open.accepted) == self.plan.cohort:  # rule 7
            self.close(now_s, "cohort")
        return ("ACCEPTED", float(num_examples), staleness)

    def leave(self, device: int, now_s: float) -> None:  # rule 13
        if self.open.window_ends_s is None or now_s > self.open.window_ends_s:
            self.advance(now_s)
        self.open.held.discard(device)
        self.open.chosen.discard(device)

    def end_window(self) -> None:
        candidates = np.array(sorted(self.open.held), np.int64)
        if len(candidates) > self.selected:
            assert self.selection is not None
            candidates = self.selection.choose(candidates, count=self.selected, round_index=self.open.index)
        self.open.chosen, self.open.has_chosen = set(candidates.tolist()), len(candidates) > 0
        if self.open.has_chosen:
            self.open.opened_s = self.open.window_ends_s
        self.open.window_ends_s = None

    def advance(self, now_s: float) -> None:
        if self.open.window_ends_s is not None and now_s >= self.open.window_ends_s:  # rule 13
            self.end_window()
        if now_s >= self.deadline_s():  # rule 6
            self.close(self.deadline_s(), "deadline")

    def close(self, time_s: float, reason: str) -> None:
        closed = self.open
        for left_over in closed.live.values():
            left_over.state = "late" if reason == "cohort" else "deadline_passed"
        accepted = [closed.accepted[device] for device in sorted(closed.accepted)]
        succeeded = len(accepted) >= (self.plan.cohort if reason == "cohort" else self.minimum)
        closing = {
            "round": closed.index,
            "model_version": closed.model_version,
            "time_s": time_s,
            "opened_s": closed.opened_s,
            "succeeded": succeeded,
            "reason": reason,
            "assignment_id": [assignment.assignment_id for assignment in accepted],
            "device": [assignment.device for assignment in accepted],
            "num_examples": [assignment.num_examples for assignment in accepted],
            "assigned": len(closed.live) + len(accepted) + len(closed.withdrawn),
            "withdrawn": len(closed.withdrawn),
        }
        self.closings.append(closing)
        if succeeded:
            for device in closed.accepted:
                self.models[device] = self.models.get(device, 0) + 1
        self.open = Round(closed.index + 1, closed.model_version + succeeded)
