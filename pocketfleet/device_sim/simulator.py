"""Rounds on the virtual clock: phones check in, attempt their work, report; a closed round makes the next model.

The walk of a round:

1. ``_ask_devices``: devices that may train check in with the ``Coordinator`` and get an assignment or are turned away.
   A device that was turned away tries again when the next round opens (``interval_s``); before, none asks.
2. ``Population.start`` settles how each attempt will go; its end is an event on the clock.
3. ``_finish_attempt``: at its end the device reports (the coordinator accepts or rejects it) or has dropped out.
4. ``_close_round``: the accepted devices train (``GlobalModel.learn``), the model is evaluated, a checkpoint written.

Events are ordered by (time, order of scheduling). At one time, attempts end first, then a deadline closes, then
devices are asked.
"""

import heapq
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pocketfleet.device_sim.attempt import Drop
from pocketfleet.device_sim.events import SERVER, EventLog
from pocketfleet.device_sim.global_model import GlobalModel
from pocketfleet.device_sim.population import InFlight, Population
from pocketfleet.device_sim.run_directory import EXPERIMENT, Checkpoint, RunDirectory
from pocketfleet.device_sim.tables import server_rows
from pocketfleet.errors import InputError
from pocketfleet.training.coordinator import Coordinator
from pocketfleet.training.round import CheckInCode, ReportCode, RoundClosed, RoundPlan

__all__ = ["Outcome", "Schedule", "Simulator"]

Observer = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When to stop, evaluate and write.

    Attributes:
        count: model versions to publish.
        horizon_s: virtual time at which to stop at the latest.
        evaluate_every: model versions between two evaluations; the last is always evaluated.
        checkpoint_every: closed rounds between two checkpoints.
    """

    count: int
    horizon_s: float
    evaluate_every: int
    checkpoint_every: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a simulation ended; ``reason`` is ``rounds`` or ``horizon``."""

    reason: str
    virtual_s: float
    wall_s: float
    metrics_initial: dict[str, float]
    in_flight: int


class Simulator:
    """One run; ``restore`` first to continue an earlier one."""

    def __init__(
        self,
        *,
        plan: RoundPlan,
        schedule: Schedule,
        population: Population,
        model: GlobalModel,
        directory: RunDirectory,
        log: EventLog,
        observer: Observer,
    ) -> None:
        self._plan = plan
        self._schedule = schedule
        self._population = population
        self._model = model
        self._directory = directory
        self._log = log
        self._observer = observer
        self._coordinator = Coordinator(plan, population=len(population.fleet))
        self._now_s = 0.0
        self._next_look_s = 0.0
        self._heap: list[tuple[float, int, int]] = []
        self._scheduled = 0
        self._flights: dict[int, InFlight] = {}  # under way, by assignment
        self._accepted: dict[int, InFlight] = {}  # reported in the open round
        self._counts: Counter[str] = Counter()  # of the open round
        self._rows: list[dict[str, Any]] = []  # closed rounds since the last checkpoint
        self._checkpoint = -1
        self._metrics_initial: dict[str, float] = {}
        self._kept_index: dict[int, int] = {}  # device store entries of the last checkpoint
        self._wall_before_s = 0.0
        self._wall_start_s = time.perf_counter()

    def run(self) -> Outcome:
        """Go on until enough model versions are published or the horizon is reached."""
        if self._checkpoint < 0:
            self._metrics_initial = self._model.evaluate(round_index=0)
            self._save()
        reason = "rounds"
        while self._coordinator.model_version < self._schedule.count:
            self._ask_devices()
            next_s = self._next_event_s()
            if next_s > self._schedule.horizon_s:
                # A horizon that was moved behind a resumed run does not set the clock back.
                self._now_s, reason = max(self._now_s, self._schedule.horizon_s), "horizon"
                break
            self._now_s = next_s
            while self._heap and self._heap[0][0] == next_s:
                self._finish_attempt(self._flights.pop(heapq.heappop(self._heap)[2]))
            for closed in self._coordinator.advance(next_s):
                self._close_round(closed)
        self._save()
        return Outcome(
            reason=reason,
            virtual_s=self._now_s,
            wall_s=self._wall_s(),
            metrics_initial=self._metrics_initial,
            in_flight=len(self._flights),
        )

    def _wall_s(self) -> float:
        return self._wall_before_s + time.perf_counter() - self._wall_start_s

    def _next_event_s(self) -> float:
        attempt_s = self._heap[0][0] if self._heap else np.inf
        return float(min(attempt_s, self._coordinator.next_deadline_s(), self._next_look_s))

    def _ask_devices(self) -> None:
        """Fill the open round's slots from the devices that may train now."""
        if self._now_s < self._next_look_s:
            return
        if self._now_s < self._coordinator.opens_s:
            self._next_look_s = self._coordinator.opens_s
            return
        round_index = self._coordinator.round
        # With every slot taken only a device that lost its assignment may have it again.
        askable = self._population.askable(round_index=round_index, returning=self._coordinator.open_slots == 0)
        devices = self._population.checking_in(askable, self._now_s, round_index=round_index)
        if len(devices):
            answer = self._coordinator.check_in_many(devices, np.full(len(devices), self._now_s))
            chosen = answer.code == CheckInCode.ASSIGNED
            self._counts["turned_away"] += int((~chosen).sum())
            self._start(devices[chosen], answer.assignment_id[chosen])
            askable = self._population.askable(round_index=round_index, returning=self._coordinator.open_slots == 0)
        self._next_look_s = self._population.next_look_s(askable, self._now_s)

    def _start(self, devices: np.ndarray[Any, Any], assignment_id: np.ndarray[Any, Any]) -> None:
        flights = self._population.start(
            devices,
            assignment_id,
            round_index=self._coordinator.round,
            model_version=self._coordinator.model_version,
            now_s=self._now_s,
            deadline_s=self._coordinator.next_deadline_s(),
        )
        for flight in flights:
            self._flights[flight.assignment_id] = flight
            heapq.heappush(self._heap, (flight.end_s, self._scheduled, flight.assignment_id))
            self._scheduled += 1

    def _finish_attempt(self, flight: InFlight) -> None:
        ledger, device = self._population.ledger, flight.device
        self._population.end(flight)
        # The device is free again: look anew, at it and for the time of the next look.
        self._next_look_s = self._now_s
        if flight.drop != Drop.NONE:
            reason = Drop(flight.drop).word
            self._log.add(flight.end_s, device, flight.round, "drop", reason=reason)
            ledger.drop(device, flight.end_s, round_index=flight.round)
            return
        answer = self._coordinator.report_many([flight.assignment_id], [flight.num_examples], [flight.end_s])
        code = ReportCode(int(answer.code[0]))
        self._log.add(flight.end_s, device, flight.round, "report", reason=code.name.lower())
        ledger.column["failures"][device] = 0
        if code is ReportCode.ACCEPTED:
            ledger.column["accepted"][device] += 1
            ledger.column["reported_round"][device] = flight.round
            self._accepted[flight.assignment_id] = flight
        else:
            ledger.column["rejected"][device] += 1

    def _close_round(self, closed: RoundClosed) -> None:
        accepted = [self._accepted[number] for number in closed.assignment_id.tolist()]
        reason = closed.reason if closed.succeeded else "abandoned"
        self._log.add(closed.time_s, SERVER, closed.round, "close", reason=reason)
        row: dict[str, Any] = {
            "round": closed.round,
            "model_version": self._coordinator.model_version,
            "opened_s": closed.opened_s,
            "closed_s": closed.time_s,
            "outcome": reason,
            "assigned": closed.assigned,
            "accepted": len(accepted),
            "withdrawn": closed.withdrawn,
            "turned_away": self._counts["turned_away"],
            "num_examples": int(closed.num_examples.sum()) if closed.succeeded else 0,
            "steps": sum(flight.steps for flight in accepted) if closed.succeeded else 0,
            "train_loss": np.nan,
            "non_finite": 0,
        }
        if closed.succeeded:
            learning = self._model.learn(accepted, round_index=closed.round, ledger=self._population.ledger)
            row |= {"train_loss": learning.train_loss, "non_finite": learning.non_finite}
            version = self._coordinator.model_version
            if version % self._schedule.evaluate_every == 0 or version == self._schedule.count:
                row |= self._model.evaluate(round_index=closed.round)
        self._accepted.clear()
        self._counts.clear()
        self._next_look_s = self._now_s
        self._rows.append(row)
        self._observer(row)
        if len(self._rows) >= self._schedule.checkpoint_every:
            self._save()

    def _save(self) -> None:
        """Write the rows since the last checkpoint, then the checkpoint that counts on them."""
        previous = dict(self._kept_index)
        self._checkpoint += 1
        self._directory.write_parts(self._checkpoint, {"events": self._log.take(), "rounds": server_rows(self._rows)})
        self._rows = []
        values = {
            "now_s": self._now_s,
            "next_look_s": self._next_look_s,
            "scheduled": self._scheduled,
            "heap": self._heap,
            "flights": [asdict(flight) for flight in self._flights.values()],
            "accepted": [asdict(flight) for flight in self._accepted.values()],
            "counts": dict(self._counts),
            "event_sequence": self._log.sequence,
            "metrics_initial": self._metrics_initial,
            "wall_s": self._wall_s(),
            "store_index": sorted(self._model.store.index.items()),
        }
        arrays = {f"coordinator.{name}": column for name, column in self._coordinator.state().items()}
        self._directory.write_checkpoint(
            self._checkpoint,
            Checkpoint(values=values, arrays=arrays | self._population.state(), tensors=self._model.state()),
        )
        self._kept_index = dict(self._model.store.index)
        self._model.store.keep(previous, self._kept_index)

    def restore(self) -> None:
        """Continue from the directory's latest checkpoint; without one, from the beginning."""
        number = self._directory.latest_number()
        if number < 0:
            return
        checkpoint = self._directory.read_checkpoint(number)
        values = checkpoint.values
        self._checkpoint = number
        self._now_s, self._next_look_s = values["now_s"], values["next_look_s"]
        self._scheduled = values["scheduled"]
        self._heap = [(end_s, order, number) for end_s, order, number in values["heap"]]
        self._flights = {flight["assignment_id"]: InFlight(**flight) for flight in values["flights"]}
        self._accepted = {flight["assignment_id"]: InFlight(**flight) for flight in values["accepted"]}
        self._counts = Counter(values["counts"])
        self._log.sequence = values["event_sequence"]
        self._metrics_initial = values["metrics_initial"]
        self._wall_before_s = values["wall_s"]
        self._model.store.index = dict(values["store_index"])
        self._kept_index = dict(self._model.store.index)
        self._model.restore(checkpoint.tensors)
        self._population.restore(checkpoint.arrays)
        prefix = "coordinator."
        state = {
            name.removeprefix(prefix): column for name, column in checkpoint.arrays.items() if name.startswith(prefix)
        }
        try:
            self._coordinator = Coordinator.restore(self._plan, state)
        except ValueError as exc:
            raise InputError(
                f"{self._directory.path / EXPERIMENT} was edited since the run started ({exc}): put [rounds] back as "
                "it was, or start a new run"
            ) from exc
