"""Which version of the model devices use: versions are tried by devices' evaluations, then by a share of devices.

A state machine without clock, IO or tensors; the service and the simulator drive the same one. Time is an argument, in
seconds, and never falls. Rules:

1. One version is released: what devices use. At the start that is version 0, the untrained model.
2. One version at most is on trial. A version that is made while there is none goes on trial at once; otherwise it
   waits, and one that waited before it is superseded. So trials end however fast versions are made.
3. A trial has two stages. In the first the version is a candidate: devices evaluate it and the released one on the
   examples that they hold out. When it passes it is the canary: devices of its share use it, and they alone evaluate
   both. When it passes again, or there is no share, it is released and the one before is retired. A candidate that
   fails is held back, a canary that fails is rolled back: its devices use the released one again.
4. The share is drawn for each version and device anew: ``draws.uniform`` of (seed, "canary", version, device).
5. A device evaluates once a stage. It is asked while fewer devices are at it or done than the reports wanted times
   ``over_selection``; who has not reported ``report_within_s`` after it was asked is no longer counted as at it. A
   report counts as long as its stage goes on, late or not.
6. A stage is judged when all reports wanted are in, or at its deadline when ``minimum_ratio`` of them are; at the
   deadline with fewer the version fails. How it is judged: ``release_verdict``.
7. An administrator's choice is released at once and ends the trial under way; until it is taken back no version is
   tried. Then the newest version goes on trial, if it is not the chosen one.
8. Training is not the gate's: the next version is made of the newest, released or not.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import takewhile
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketfleet.training.draws import draw_key, uniform
from pocketfleet.training.release_verdict import (
    Measured,
    Reason,
    ReleasePlan,
    ReleaseState,
    Stage,
    Verdict,
    failing,
    verdict_of,
)

__all__ = [
    "Change",
    "Evaluation",
    "EvaluationCode",
    "ReleaseGate",
    "canary_share",
]


class EvaluationCode(StrEnum):
    """What became of a report: it counts, it did before, its stage is over, or nobody was asked for it."""

    COUNTED = "counted"
    REPEATED = "repeated"
    OVER = "over"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a device is asked for: to measure ``version`` and ``released``, and to report on ``number``."""

    number: int
    stage: Stage
    version: int
    released: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A version became something else, and why; ``verdict`` where reports were judged."""

    version: int
    state: ReleaseState
    time_s: float
    reason: Reason
    verdict: Verdict | None = None


@dataclass(slots=True, kw_only=True)
class _Trial:
    version: int
    stage: Stage
    began_s: float
    asked: dict[int, int] = field(default_factory=dict)  # devices by number
    at_it: dict[int, tuple[int, float]] = field(default_factory=dict)  # numbers and since when, by device, oldest first
    reports: dict[int, Measured] = field(default_factory=dict)  # by device


class ReleaseGate:
    """See the module's rules.

    Args:
        plan: what it keeps to.
    """

    def __init__(self, plan: ReleasePlan) -> None:
        self._plan = plan
        self._released = 0
        self._newest = 0
        self._chosen = False  # by an administrator
        self._waiting = -1  # none
        self._trial: _Trial | None = None
        self._next_number = 0
        self._now_s = 0.0

    @property
    def now_s(self) -> float:
        """When it last was told of something."""
        return self._now_s

    @property
    def released(self) -> int:
        """The version that devices use which are in no share."""
        return self._released

    @property
    def newest(self) -> int:
        """The newest version that the gate was told of."""
        return self._newest

    @property
    def chosen(self) -> bool:
        """Whether an administrator chose what is released."""
        return self._chosen

    @property
    def trial(self) -> tuple[int, Stage] | None:
        """The version on trial and its stage."""
        return (self._trial.version, self._trial.stage) if self._trial else None

    def versions_in_use(self) -> set[int]:
        """Versions whose weights are needed: released, on trial, and waiting."""
        on_trial = {self._trial.version} if self._trial else set()
        return {self._released, *on_trial} | ({self._waiting} if self._waiting >= 0 else set())

    def version_for(self, device: int) -> int:
        """The version that a device is to use."""
        trial = self._trial
        if trial is not None and trial.stage is ReleaseState.CANARY and self.in_share(trial.version, device):
            return trial.version
        return self._released

    def in_share(self, version: int, device: int) -> bool:
        """Rule 4."""
        return bool(canary_share(self._plan, version, np.array([device]))[0])

    def next_deadline_s(self) -> float:
        """When ``advance`` has something to do at the latest; infinite without a trial."""
        return self._trial.began_s + self._plan.deadline_s if self._trial else math.inf

    # What happens

    def made(self, version: int, now_s: float) -> list[Change]:
        """A version was made; one that the gate knows already changes nothing."""
        changes = self.advance(now_s)
        if version <= self._newest:
            return changes
        self._newest = version
        if self._waiting >= 0:
            changes.append(self._change(self._waiting, ReleaseState.SUPERSEDED, "newer"))
        self._waiting = version
        if self._trial is not None or self._chosen:
            return [*changes, self._change(version, ReleaseState.WAITING, "made")]
        return changes + self._begin_next()

    def wants(self, device: int, now_s: float) -> bool:
        """Whether ``ask`` would ask this device; changes nothing."""
        trial = self._trial
        if trial is None or now_s >= self.next_deadline_s() or device in trial.reports:
            return False
        if trial.stage is ReleaseState.CANARY and not self.in_share(trial.version, device):
            return False
        return device in trial.at_it or self.room(now_s) > 0

    def room(self, now_s: float) -> int:
        """How many further devices may be asked (rule 5)."""
        trial = self._trial
        if trial is None:
            return 0
        at_it = len(trial.at_it) - len(self._given_up(trial, now_s))
        most = math.ceil(self._plan.wanted(trial.stage) * self._plan.over_selection)
        return max(most - at_it - len(trial.reports), 0)

    def _given_up(self, trial: _Trial, now_s: float) -> list[int]:
        """Devices that have been at it for too long."""
        since_s = ((device, at_s) for device, (_, at_s) in trial.at_it.items())
        too_long = takewhile(lambda pair: pair[1] + self._plan.report_within_s <= now_s, since_s)
        return [device for device, _ in too_long]

    def ask(self, device: int, now_s: float) -> Evaluation | None:
        """What a device that is free is asked for; the same again while it is at it. ``None``: nothing."""
        self._check_time(now_s)
        trial = self._trial
        if trial is None or not self.wants(device, now_s):
            return None
        for given_up in self._given_up(trial, now_s):
            del trial.at_it[given_up]
        if device not in trial.at_it:
            trial.at_it[device] = (self._next_number, now_s)
            trial.asked[self._next_number] = device
            self._next_number += 1
        self._now_s = now_s
        number = trial.at_it[device][0]
        return Evaluation(number=number, stage=trial.stage, version=trial.version, released=self._released)

    def report(self, number: int, measured: Measured, now_s: float) -> tuple[EvaluationCode, list[Change]]:
        """A device's evaluation is in."""
        changes = self.advance(now_s)
        trial = self._trial
        if trial is None or number not in trial.asked:
            known = 0 <= number < self._next_number
            return (EvaluationCode.OVER if known else EvaluationCode.UNKNOWN), changes
        device = trial.asked[number]
        if device in trial.reports:
            return EvaluationCode.REPEATED, changes
        trial.at_it.pop(device, None)
        trial.reports[device] = measured
        if len(trial.reports) >= self._plan.wanted(trial.stage):
            changes += self._judge(trial)
        return EvaluationCode.COUNTED, changes

    def advance(self, now_s: float) -> list[Change]:
        """Time goes on: a stage's deadline may have passed."""
        self._check_time(now_s)
        changes: list[Change] = []
        # What follows on a deadline happened at the deadline.
        while self._trial is not None and self.next_deadline_s() <= now_s:
            self._now_s = self.next_deadline_s()
            trial = self._trial
            least = max(1, math.ceil(self._plan.wanted(trial.stage) * self._plan.minimum_ratio))
            if len(trial.reports) >= least:
                changes += self._judge(trial)
            else:
                changes += self._fail(trial, "too_few", verdict_of(trial.reports.values(), self._plan))
        self._now_s = now_s
        return changes

    def choose(self, version: int, now_s: float) -> list[Change]:
        """Rule 7: an administrator releases a version, or rolls back to it."""
        changes = self.advance(now_s)
        if self._trial is not None and self._trial.version != version:
            given = self._trial.stage is ReleaseState.CANARY
            state = ReleaseState.ROLLED_BACK if given else ReleaseState.SUPERSEDED
            changes.append(self._change(self._trial.version, state, "administrator"))
        self._trial, self._chosen = None, True
        if self._waiting == version:
            self._waiting = -1
        if version != self._released:
            state = ReleaseState.ROLLED_BACK if version < self._released else ReleaseState.RETIRED
            changes.append(self._change(self._released, state, "administrator"))
            self._released = version
            changes.append(self._change(version, ReleaseState.RELEASED, "administrator"))
        return changes

    def let_go(self, now_s: float) -> list[Change]:
        """Rule 7: the administrator's choice is taken back; what is released stays so until a version passes."""
        changes = self.advance(now_s)
        self._chosen = False
        return changes + self._begin_next() if self._trial is None else changes

    # Trials

    def _begin_next(self) -> list[Change]:
        if self._waiting < 0 or self._chosen:
            return []
        self._trial = _Trial(version=self._waiting, stage=ReleaseState.CANDIDATE, began_s=self._now_s)
        self._waiting = -1
        return [self._change(self._trial.version, ReleaseState.CANDIDATE, "made")]

    def _judge(self, trial: _Trial) -> list[Change]:
        verdict = verdict_of(trial.reports.values(), self._plan)
        reason = failing(verdict, self._plan)
        if reason is not None:
            return self._fail(trial, reason, verdict)
        if trial.stage is ReleaseState.CANDIDATE and self._plan.canary_ratio > 0.0:
            self._trial = _Trial(version=trial.version, stage=ReleaseState.CANARY, began_s=self._now_s)
            return [self._change(trial.version, ReleaseState.CANARY, "passed", verdict)]
        changes = [
            self._change(self._released, ReleaseState.RETIRED, "newer"),
            self._change(trial.version, ReleaseState.RELEASED, "passed", verdict),
        ]
        self._released, self._trial = trial.version, None
        return changes + self._begin_next()

    def _fail(self, trial: _Trial, reason: Reason, verdict: Verdict) -> list[Change]:
        given = trial.stage is ReleaseState.CANARY
        state = ReleaseState.ROLLED_BACK if given else ReleaseState.HELD_BACK
        self._trial = None
        return [self._change(trial.version, state, reason, verdict), *self._begin_next()]

    def _change(self, version: int, state: ReleaseState, reason: Reason, verdict: Verdict | None = None) -> Change:
        return Change(version=version, state=state, time_s=self._now_s, reason=reason, verdict=verdict)

    def _check_time(self, now_s: float) -> None:
        if now_s < self._now_s:
            raise ValueError(f"time must not fall: it was {self._now_s} s, got {now_s} s")

    # Between two processes

    def state(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        trial = self._trial
        return {
            "released": self._released,
            "newest": self._newest,
            "chosen": self._chosen,
            "waiting": self._waiting,
            "next_number": self._next_number,
            "now_s": self._now_s,
            "trial": None
            if trial is None
            else {
                "version": trial.version,
                "stage": trial.stage.value,
                "began_s": trial.began_s,
                "asked": list(trial.asked.items()),
                "at_it": [[device, number, at_s] for device, (number, at_s) in trial.at_it.items()],
                "reports": [[device, _told(measured)] for device, measured in trial.reports.items()],
            },
        }

    @classmethod
    def restore(cls, plan: ReleasePlan, state: Mapping[str, Any]) -> "ReleaseGate":
        """The gate that ``state`` was taken from."""
        gate = cls(plan)
        gate._released, gate._newest, gate._chosen = state["released"], state["newest"], state["chosen"]
        gate._waiting, gate._next_number, gate._now_s = state["waiting"], state["next_number"], state["now_s"]
        trial = state["trial"]
        if trial is not None:
            canary = trial["stage"] == ReleaseState.CANARY
            gate._trial = _Trial(
                version=trial["version"],
                stage=ReleaseState.CANARY if canary else ReleaseState.CANDIDATE,
                began_s=trial["began_s"],
                asked=dict(trial["asked"]),
                at_it={device: (number, at_s) for device, number, at_s in trial["at_it"]},
                reports={device: _measured(told) for device, told in trial["reports"]},
            )
        return gate


def canary_share(plan: ReleasePlan, version: int, device: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Rule 4: which devices ``[n]`` are in a version's share."""
    drawn = uniform(draw_key(plan.seed, "canary", version, device), 1)[:, 0]
    share: npt.NDArray[np.bool_] = drawn < plan.canary_ratio
    return share


def _told(measured: Measured) -> dict[str, Any]:
    """Without infinities, which JSON does not have."""
    return {name: value if math.isfinite(value) else None for name, value in asdict(measured).items()}


def _measured(told: Mapping[str, Any]) -> Measured:
    tried, released = (math.nan if told[name] is None else told[name] for name in ("tried", "released"))
    return Measured(num_held_out=told["num_held_out"], tried=tried, released=released)
