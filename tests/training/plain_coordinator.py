"""The synchronous round, one object per assignment: slow, obvious, the oracle of the fast coordinator.

Rule numbers are those of ``pocketfleet.training.coordinator``.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from pocketfleet.training.round import RoundPlan


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


class PlainCoordinator:
    def __init__(self, plan: RoundPlan, *, model_version: int = 0) -> None:
        self.plan = plan
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
        return self.selected - len(self.open.live) - len(self.open.accepted)

    def check_in(self, device: int, now_s: float) -> tuple[int, str, float | None, int, int]:
        self.advance(now_s)
        if now_s < self.opens_s():  # rule 12
            return (-1, "NOT_YET", self.opens_s(), self.open.index, self.open.model_version)
        if device in self.open.accepted:  # rule 4
            return (-1, "ALREADY_REPORTED", self.deadline_s(), self.open.index, self.open.model_version)
        if device in self.open.live:  # rule 5
            lost = self.open.live.pop(device)
            lost.state = "withdrawn"
            self.open.withdrawn.append(lost)
        if self.slots() == 0:  # rule 2
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

    def advance(self, now_s: float) -> None:
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
        self.open = Round(closed.index + 1, closed.model_version + succeeded)
