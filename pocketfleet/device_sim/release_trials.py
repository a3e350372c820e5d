"""Versions on trial in virtual time: which phones evaluate them when, and what the gate makes of it.

Rules:

1. When a stage of a trial begins, phones come in an order drawn anew for it (``draws.walk``), of a canary those of its
   share alone. Those that may evaluate at that moment (``evaluators``) are asked, as many as the gate has room for.
   While it has room, the others are looked at again every ``LOOK_EVERY_S``.
2. An asked phone measures both versions on what it held out when it was asked, and reports when its evaluation is over.
   Where the stage is over by then, nothing was measured, and its seconds and bytes were spent all the same.
3. At one time, evaluations end first, then a deadline passes, then phones come.

The gate is ``training.release_gate``, the same as of the service. Training is as it would be without one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.client import mean_evaluation
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.device_sim.evaluators import Evaluators
from pocketfleet.device_sim.events import SERVER, EventLog
from pocketfleet.device_sim.ledger import Ledger
from pocketfleet.device_sim.open_round import LOOK_EVERY_S
from pocketfleet.device_sim.workers import one_torch_thread
from pocketfleet.export.session import Session
from pocketfleet.training.draws import draw_key, walk, walk_length
from pocketfleet.training.release_gate import Change, EvaluationCode, ReleaseGate, canary_share
from pocketfleet.training.release_verdict import Measured, ReleasePlan, ReleaseState, Stage
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["ReleaseTrials"]

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

# Phones of a walk that are looked at together.
_AT_ONCE = 4096
# Evaluations under way; the columns are ``evaluators.EvaluationCosts``'s, and what the device held when it was asked.
_PENDING = np.dtype(
    [
        ("end_s", np.float64),
        ("number", np.int64),
        ("device", np.int64),
        ("version", np.int64),
        ("canary", np.bool_),
        ("seconds", np.float64),
        ("bytes", np.int64),
        ("metered_bytes", np.int64),
        ("joules", np.float64),
        ("first_example", np.int64),
        ("num_present", np.int64),
        ("num_held_out", np.int64),
    ],
    align=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measure:
    """How a phone measures a model.

    Attributes:
        session: evaluates.
        data: what the phones hold.
        batch_size: examples a call.
        metric: that the gate goes by.
    """

    session: Session
    data: DeviceData
    batch_size: int
    metric: str

    def of(self, weights: Weights, one: np.void) -> float:
        """The mean of the metric on what a device held out when it was asked."""
        first = int(one["first_example"])
        held_out = self.data.held_out(int(one["device"]), range(first, first + int(one["num_present"])))
        with one_torch_thread():
            return mean_evaluation(self.session, weights, held_out, batch_size=self.batch_size)[self.metric]


class ReleaseTrials:
    """The gate of a simulation, and the phones that evaluate for it; rounds tell it of versions and of time."""

    def __init__(
        self,
        plan: ReleasePlan,
        *,
        metric: str,
        evaluators: Evaluators,
        session: Session,
        data: DeviceData,
        newest: Callable[[], Weights],
        ledger: Ledger,
        log: EventLog,
    ) -> None:
        """Take the parts.

        Args:
            plan: of the gate.
            metric: that it goes by.
            evaluators: who may evaluate, and for what.
            session: measures.
            data: what the phones hold.
            newest: gives the newest version's weights; now those of version 0.
            ledger: takes what evaluations cost.
            log: likewise, and what versions became.
        """
        self._plan = plan
        self._gate = ReleaseGate(plan)
        self._evaluators = evaluators
        batch_size = evaluators.workload.batch_size
        self._measure = _Measure(session=session, data=data, batch_size=batch_size, metric=metric)
        self._newest = newest
        self._ledger, self._log = ledger, log
        self._weights = {0: newest()}
        self._round_of = {0: -1}  # that made each version whose weights are kept
        self._stage: tuple[int, Stage] | None = None
        self._looks_s = np.inf  # when phones come next
        self._asked = np.zeros(len(evaluators.fleet), dtype=np.bool_)  # in this stage
        self._pending = np.zeros(0, dtype=_PENDING)
        self._changes: list[dict[str, Any]] = []

    @property
    def released(self) -> int:
        """The version that phones use which are in no share."""
        return self._gate.released

    @property
    def released_weights(self) -> Weights:
        """Of that version."""
        return self._weights[self._gate.released]

    @property
    def now_s(self) -> float:
        """When the gate last was told of something."""
        return self._gate.now_s

    def made(self, version: int, *, round_index: int, now_s: float) -> None:
        """The newest version was made, at ``now_s``, up to which time has been played."""
        self._weights[version] = self._newest()
        self._round_of[version] = round_index
        self._told(self._gate.made(version, now_s))

    def play(self, until_s: float) -> None:
        """Let everything happen up to ``until_s``, and at it."""
        while (at_s := self._next_s()) <= until_s:
            if self._pending["end_s"].min(initial=np.inf) <= at_s:
                self._end_first()
            elif self._gate.next_deadline_s() <= at_s:
                self._told(self._gate.advance(at_s))
            else:
                self._come(at_s)

    def finish(self, horizon_s: float) -> None:
        """Let trials come to their ends, at the horizon at the latest; who still evaluates then is not waited for."""
        while self._gate.trial is not None and self._next_s() <= horizon_s:
            self.play(self._next_s())

    def _next_s(self) -> float:
        looks_s = self._looks_s if self._gate.trial is not None else np.inf
        return float(min(self._pending["end_s"].min(initial=np.inf), self._gate.next_deadline_s(), looks_s))

    def _told(self, changes: Sequence[Change]) -> None:
        for change in changes:
            made_by = self._round_of[change.version]
            self._log.add(change.time_s, SERVER, made_by, "release", reason=change.state.value)
            verdict = change.verdict
            self._changes.append(
                {
                    "time_s": change.time_s,
                    "version": change.version,
                    "round": made_by,
                    "state": change.state.value,
                    "reason": change.reason,
                    "evaluations": verdict.reports if verdict else 0,
                    "tried": verdict.tried if verdict else np.nan,
                    "released": verdict.released if verdict else np.nan,
                }
            )
        if self._gate.trial != self._stage:
            self._stage = self._gate.trial
            self._looks_s = self._gate.now_s
            self._asked[:] = False
            # Those that are still at an evaluation go on with it.
            kept = self._gate.versions_in_use() | set(self._pending["version"].tolist())
            self._weights = {version: one for version, one in self._weights.items() if version in kept}
            self._round_of = {version: one for version, one in self._round_of.items() if version in kept}

    # Phones

    def _come(self, at_s: float) -> None:
        """Rule 1."""
        self._looks_s = at_s + LOOK_EVERY_S
        assert self._stage is not None
        version, stage = self._stage
        count = len(self._asked)
        key = draw_key(self._evaluators.seed, f"evaluate.{stage.value}", version)
        for start in range(0, walk_length(count), _AT_ONCE):
            room = self._gate.room(at_s)
            if room == 0:
                return
            _, device = walk(key, count, start, min(start + _AT_ONCE, walk_length(count)))
            device = device[~self._asked[device]]
            if stage is ReleaseState.CANARY:
                device = device[canary_share(self._plan, version, device)]
            device = device[self._evaluators.able(device, np.full(len(device), at_s))]
            if len(device):
                self._ask(device[:room], at_s)

    def _ask(self, device: Int64s, at_s: float) -> None:
        asked = [self._gate.ask(int(one), at_s) for one in device]
        number = np.array([one.number for one in asked if one is not None])
        assert len(number) == len(device)
        assert self._stage is not None
        self._asked[device] = True
        times = np.full(len(device), at_s)
        held, num_held_out = self._evaluators.held(device, times)
        costs = self._evaluators.costs(device, times, number=number)
        began = np.zeros(len(device), dtype=_PENDING)
        columns = {
            "end_s": at_s + costs.seconds,
            "number": number,
            "device": device,
            "version": self._stage[0],
            "canary": self._stage[1] is ReleaseState.CANARY,
            "first_example": held.first_example,
            "num_present": held.num_present,
            "num_held_out": num_held_out,
            **{name: getattr(costs, name) for name in ("seconds", "bytes", "metered_bytes", "joules")},
        }
        for name, values in columns.items():
            began[name] = values
        self._pending = np.concatenate([self._pending, began])

    def _end_first(self) -> None:
        """Rule 2, of the evaluation that ends first."""
        place = int(self._pending["end_s"].argmin())
        one = self._pending[place]
        self._pending = np.delete(self._pending, place)
        device, at_s = int(one["device"]), float(one["end_s"])
        stage = ReleaseState.CANARY if one["canary"] else ReleaseState.CANDIDATE
        # At its deadline a stage is over.
        counts = self._stage == (int(one["version"]), stage) and at_s < self._gate.next_deadline_s()
        costs = {name: one[name].item() for name in ("seconds", "bytes", "metered_bytes", "joules")}
        reason = "accepted" if counts else "late"
        self._log.add(at_s, device, self._round_of[int(one["version"])], "evaluate", reason=reason, **costs)
        for name, cost in (
            ("downlink_bytes", "bytes"),
            ("metered_bytes", "metered_bytes"),
            ("energy_joules", "joules"),
        ):
            self._ledger.add(name, np.array([device]), costs[cost])
        if not counts:
            return
        measured = Measured(
            num_held_out=int(one["num_held_out"]),
            tried=self._measure.of(self._weights[int(one["version"])], one),
            released=self._measure.of(self.released_weights, one),
        )
        code, changes = self._gate.report(int(one["number"]), measured, at_s)
        assert code is EvaluationCode.COUNTED
        self._told(changes)

    # Checkpoints and tables

    def take_changes(self) -> Sequence[Mapping[str, Any]]:
        """What versions became since the last call, in order of time; rows for ``tables.release_rows``."""
        rows, self._changes = self._changes, []
        return rows

    def state(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]], Tensors]:
        """Values, arrays and tensors for a checkpoint."""
        values = {
            "gate": self._gate.state(),
            "looks_s": self._looks_s if np.isfinite(self._looks_s) else None,
            "round_of": list(self._round_of.items()),
        }
        arrays = {"release.asked": self._asked.copy(), "release.pending": self._pending}
        # Copies: a file of tensors has none that is another one's, and the newest version's are the model's too.
        tensors = {
            f"release/{version}/{part}/{name}": value.clone()
            for version, weights in self._weights.items()
            for part, group in (("trainable", weights.trainable), ("buffers", weights.buffers))
            for name, value in group.items()
        }
        return values, arrays, tensors

    def restore(self, values: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]], tensors: Tensors) -> None:
        """Continue from what ``state`` returned; frozen weights are those of the newest version."""
        self._gate = ReleaseGate.restore(self._plan, values["gate"])
        self._stage = self._gate.trial
        self._looks_s = np.inf if values["looks_s"] is None else values["looks_s"]
        self._round_of = dict(values["round_of"])
        self._asked, self._pending = arrays["release.asked"].copy(), arrays["release.pending"]
        frozen = self._newest().frozen

        def part(prefix: str) -> Tensors:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        self._weights = {
            version: Weights(
                trainable=part(f"release/{version}/trainable/"),
                buffers=part(f"release/{version}/buffers/"),
                frozen=frozen,
            )
            for version in self._round_of
        }
