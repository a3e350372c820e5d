"""Rounds on the virtual clock: phones check in, attempt their work, report; a closed round makes the next model.

The walk of a round:

1. ``OpenRound`` plays it: devices come, those that may train start attempts, whose ends are settled at once.
2. ``_check_in``: those that came check in with the ``Coordinator``, which assigns or turns away.
3. ``_finish``: attempts that end by the time the round closes report (accepted or rejected) or have dropped out;
   the others go on, and will be late.
4. ``_close_round``: the accepted devices train (``GlobalModel.learn``), the model is evaluated, a checkpoint written.

Events are ordered by (time, order of logging). At one time, attempts end first, then a deadline closes, then devices
come.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.attempt import Drop
from pocketfleet.device_sim.device_store import DeviceStore
from pocketfleet.device_sim.events import SERVER, EventLog
from pocketfleet.device_sim.flight import Flights, no_flights
from pocketfleet.device_sim.global_model import Learning
from pocketfleet.device_sim.ledger import Ledger
from pocketfleet.device_sim.open_round import OpenRound, Played
from pocketfleet.device_sim.population import Population
from pocketfleet.device_sim.run_directory import EXPERIMENT, Checkpoint, RunDirectory
from pocketfleet.device_sim.tables import server_rows
from pocketfleet.errors import InputError
from pocketfleet.training.coordinator import Coordinator
from pocketfleet.training.round import CheckInCode, ReportCode, RoundClosed, RoundPlan
from pocketfleet.training.weights import Tensors

__all__ = ["Learner", "Outcome", "Schedule", "Simulator"]

Observer = Callable[[Mapping[str, Any]], None]


class Learner(Protocol):
    """What makes the next model of a closed round: ``global_model.GlobalModel``, or nothing but the clock."""

    store: DeviceStore

    def learn(self, accepted: Flights, *, round_index: int, ledger: Ledger) -> Learning:
        """Make the next version of accepted work, in rising order of device index."""
        ...

    def evaluate(self, *, round_index: int) -> dict[str, float]:
        """Metrics by name, each beginning with ``test_``."""
        ...

    def state(self) -> Tensors:
        """Tensors for a checkpoint."""
        ...

    def restore(self, state: Tensors) -> None:
        """Continue from what ``state`` returned."""
        ...


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
        model: Learner,
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
        self._under_way = no_flights()
        self._ended_at_horizon = False
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
        while self._coordinator.model_version < self._schedule.count and not self._ended_at_horizon:
            self._play_round()
        self._save()
        return Outcome(
            reason="horizon" if self._ended_at_horizon else "rounds",
            virtual_s=self._now_s,
            wall_s=self._wall_s(),
            metrics_initial=self._metrics_initial,
            in_flight=len(self._under_way),
        )

    def _wall_s(self) -> float:
        return self._wall_before_s + time.perf_counter() - self._wall_start_s

    def _play_round(self) -> None:
        played = OpenRound(
            self._population,
            self._plan,
            round_index=self._coordinator.round,
            model_version=self._coordinator.model_version,
            opens_s=max(self._now_s, self._coordinator.opens_s),
            horizon_s=self._schedule.horizon_s,
        ).play()
        # A horizon that was moved before a resumed run does not set the clock back.
        end_s = max(self._now_s, min(played.closes_s, self._schedule.horizon_s))
        flights = self._check_in(played)
        self._under_way = np.concatenate([self._under_way, flights])
        accepted = self._finish(end_s)
        # After the ends: a device may start again at the very time at which its late report came.
        self._log.add(flights["start_s"], flights["device"], flights["round"], "assign")
        self._now_s = end_s
        closings = self._coordinator.advance(end_s)
        for closed in closings:
            self._close_round(closed, accepted, played)
        self._ended_at_horizon = not closings

    def _check_in(self, played: Played) -> Flights:
        """Bring those that came to the coordinator; the flights with their assignments."""
        flights = played.flights
        device = np.concatenate([flights["device"], played.turned_away])
        at_s = np.concatenate([flights["start_s"], played.turned_away_s])
        order = np.argsort(at_s, kind="stable")
        answer = self._coordinator.check_in_many(device[order], at_s[order])
        starts = order < len(flights)
        if not np.array_equal(answer.code == CheckInCode.ASSIGNED, starts):
            raise AssertionError(f"round {self._coordinator.round}: others were assigned than started")
        flights["assignment_id"][order[starts]] = answer.assignment_id[starts]
        return flights

    def _finish(self, end_s: float) -> Flights:
        """Attempts that end by ``end_s`` report or have dropped out; returns those whose reports were accepted."""
        flights = self._under_way[np.argsort(self._under_way["end_s"], kind="stable")]
        over = flights["end_s"] <= end_s
        self._under_way, flights = flights[~over], flights[over]
        code = np.full(len(flights), ReportCode.UNKNOWN, dtype=np.int8)
        reports = np.flatnonzero(flights["drop"] == Drop.NONE)
        reporting = flights[reports]
        answer = self._coordinator.report_many(
            reporting["assignment_id"], reporting["num_examples"], reporting["end_s"]
        )
        code[reports] = answer.code
        self._population.end(flights, code)
        accepted: Flights = flights[code == ReportCode.ACCEPTED]
        return accepted

    def _close_round(self, closed: RoundClosed, accepted: Flights, played: Played) -> None:
        accepted = accepted[np.argsort(accepted["device"], kind="stable")]
        reason = closed.reason if closed.succeeded else "abandoned"
        self._log.add(closed.time_s, SERVER, closed.round, "close", reason=reason)
        row: dict[str, Any] = {
            "round": closed.round,
            "model_version": self._coordinator.model_version,
            "opened_s": closed.opened_s,
            "closed_s": closed.time_s,
            "outcome": reason,
            "looks": played.looks,
            "assigned": closed.assigned,
            "accepted": len(accepted),
            "withdrawn": closed.withdrawn,
            "turned_away": len(played.turned_away),
            "num_examples": int(closed.num_examples.sum()) if closed.succeeded else 0,
            "steps": int(accepted["steps"].sum()) if closed.succeeded else 0,
            "train_loss": np.nan,
            "non_finite": 0,
        }
        if closed.succeeded:
            learning = self._model.learn(accepted, round_index=closed.round, ledger=self._population.ledger)
            row |= {"train_loss": learning.train_loss, "non_finite": learning.non_finite}
            version = self._coordinator.model_version
            if version % self._schedule.evaluate_every == 0 or version == self._schedule.count:
                row |= self._model.evaluate(round_index=closed.round)
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
            "ended_at_horizon": self._ended_at_horizon,
            "event_sequence": self._log.sequence,
            "metrics_initial": self._metrics_initial,
            "wall_s": self._wall_s(),
            "store_index": sorted(self._model.store.index.items()),
        }
        arrays: dict[str, npt.NDArray[Any]] = {"under_way": self._under_way}
        arrays |= {f"coordinator.{name}": column for name, column in self._coordinator.state().items()}
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
        self._now_s, self._ended_at_horizon = values["now_s"], values["ended_at_horizon"]
        if self._ended_at_horizon and self._schedule.horizon_s > self._now_s:
            raise InputError(
                f"the run in {self._directory.path} has reached its rounds.horizon_s, {self._now_s:g} s, in the middle "
                "of a round: start a new run to go further"
            )
        self._under_way = checkpoint.arrays["under_way"]
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
