"""A run: rounds of some policy are played one after another, each makes the next model, checkpoints are written.

The policy (``SynchronousRounds`` or ``BufferedRounds``) says who trains when, and when a round closes. Then the
accepted devices train (``GlobalModel.learn``), the model is evaluated, and a checkpoint written.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.device_store import DeviceStore, Index
from pocketfleet.device_sim.events import SERVER, EventLog
from pocketfleet.device_sim.flight import Flights
from pocketfleet.device_sim.global_model import Learning
from pocketfleet.device_sim.ledger import Ledger
from pocketfleet.device_sim.population import Population
from pocketfleet.device_sim.release_trials import ReleaseTrials
from pocketfleet.device_sim.rounds import ClosedRound, Rounds, of_prefix
from pocketfleet.device_sim.run_directory import EXPERIMENT, Checkpoint, RunDirectory
from pocketfleet.device_sim.secure_stages import Group
from pocketfleet.device_sim.tables import release_rows, server_rows, update_rows
from pocketfleet.errors import InputError
from pocketfleet.training.privacy.secure_aggregation.messages import STAGES
from pocketfleet.training.weights import Tensors

__all__ = ["Learner", "Outcome", "Schedule", "Simulator"]

Observer = Callable[[Mapping[str, Any]], None]
# Rows of events that are kept in memory at most, some 40 MB: a part of the log on disk is read back as a whole.
_MOST_ROWS = 500_000


class Learner(Protocol):
    """What makes the next model of a closed round: ``global_model.GlobalModel``, or nothing but the clock."""

    store: DeviceStore

    def learn(self, accepted: Flights, *, round_index: int, ledger: Ledger, group: Group | None = None) -> Learning:
        """Make the next version of accepted work, in rising order of device index.

        ``group``: under secure aggregation, whose sum it is. Without a sum the version is the last one again.
        """
        ...

    def keep(self, versions: set[int]) -> None:
        """Forget all versions but these and the newest."""
        ...

    @property
    def figures(self) -> Mapping[str, float]:
        """Of a round's row, beside what the simulator knows."""
        ...

    def evaluate(self, *, round_index: int) -> dict[str, float]:
        """Metrics by name, each beginning with ``test_``."""
        ...

    def take_updates(self) -> Sequence[Mapping[str, npt.NDArray[np.generic]]]:
        """Columns of the updates that were taken into a model since the last call; ``tables.update_rows``."""
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
        checkpoint_share: of the wall time that writing checkpoints may take, 0 to 1. A round is followed by one as soon
            as those before it stayed within; 1: every round is, 0: the last alone. Whatever the share, one is written
            before the events of rounds fill the memory.
    """

    count: int
    horizon_s: float
    evaluate_every: int
    checkpoint_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a simulation ended.

    Attributes:
        reason: ``rounds``, ``horizon``, or ``privacy_spent``: too few devices may still be in a model.
        virtual_s, wall_s: how long it took.
        metrics_initial: of the first model, by name.
        in_flight: attempts under way.
        num_spent: devices that are in as many models as one may be.
    """

    reason: str
    virtual_s: float
    wall_s: float
    metrics_initial: dict[str, float]
    in_flight: int
    num_spent: int


class Simulator:
    """One run; ``restore`` first to continue an earlier one."""

    def __init__(
        self,
        *,
        rounds: Rounds,
        schedule: Schedule,
        population: Population,
        model: Learner,
        directory: RunDirectory,
        log: EventLog,
        observer: Observer,
        releases: ReleaseTrials | None = None,
    ) -> None:
        self._rounds = rounds
        self._schedule = schedule
        self._population = population
        self._model = model
        self._directory = directory
        self._log = log
        self._observer = observer
        self._releases = releases
        self._now_s = 0.0
        self._ended_at_horizon = False
        self._rows: list[dict[str, Any]] = []  # closed rounds since the last checkpoint
        self._checkpoint = -1
        self._metrics_initial: dict[str, float] = {}
        self._kept_index: Index = model.store.index.copy()  # the device store's, of the last checkpoint
        self._wall_before_s = 0.0
        self._saving_s = 0.0
        self._wall_start_s = time.perf_counter()

    def run(self) -> Outcome:
        """Go on until enough model versions are published, nobody is left for another, or the horizon is reached."""
        if self._checkpoint < 0:
            self._metrics_initial = self._model.evaluate(round_index=0)
            self._save()
        while not self._reason():
            self._play_round()
        self._finish_releases()
        self._save()
        return Outcome(
            reason=self._reason(),
            virtual_s=self._now_s,
            wall_s=self._wall_s(),
            metrics_initial=self._metrics_initial,
            in_flight=len(self._rounds.under_way),
            num_spent=self._rounds.num_spent,
        )

    def _reason(self) -> str:
        """Why to end; empty: there is more to play."""
        if self._ended_at_horizon:
            return "horizon"
        if self._rounds.model_version >= self._schedule.count:
            return "rounds"
        return "privacy_spent" if self._rounds.exhausted else ""

    def _finish_releases(self) -> None:
        """The versions on trial come to their ends, but for a horizon."""
        if self._releases is None:
            return
        if self._ended_at_horizon:
            self._releases.play(self._now_s)
        else:
            self._releases.finish(self._schedule.horizon_s)
            self._now_s = max(self._now_s, self._releases.now_s)

    def _wall_s(self) -> float:
        return self._wall_before_s + time.perf_counter() - self._wall_start_s

    def _play_round(self) -> None:
        self._now_s, closed = self._rounds.play(self._now_s, horizon_s=self._schedule.horizon_s)
        if closed is None:
            self._ended_at_horizon = True
        else:
            self._close_round(closed)

    def _close_round(self, closed: ClosedRound) -> None:
        closing, accepted = closed.closing, closed.accepted
        reason = closing.reason if closing.succeeded else "abandoned"
        self._log.add(closing.time_s, SERVER, closing.round, "close", reason=reason)
        staleness = closing.model_version - accepted["model_version"]
        row: dict[str, Any] = {
            "round": closing.round,
            "model_version": self._rounds.model_version,
            "opened_s": closing.opened_s,
            "closed_s": closing.time_s,
            "outcome": reason,
            "looks": closed.looks,
            "assigned": closing.assigned,
            "accepted": len(accepted),
            "withdrawn": closing.withdrawn,
            "turned_away": closed.turned_away,
            "held": closed.held,
            "candidates": closed.candidates,
            "refused": closed.refused,
            "num_examples": int(accepted["num_examples"].sum()) if closing.succeeded else 0,
            "steps": int(accepted["steps"].sum()) if closing.succeeded else 0,
            "staleness_mean": float(staleness.mean()) if len(accepted) else np.nan,
            "staleness_max": int(staleness.max(initial=0)),
            "train_loss": np.nan,
            "non_finite": 0,
        }
        if self._releases is not None:
            self._releases.play(closing.time_s)
            row["released_version"] = self._releases.released
        if closed.group is not None:
            row |= _group_columns(closed.group, closing.time_s)
        learning = Learning(train_loss=np.nan, non_finite=0)
        if closing.succeeded:
            learning = self._model.learn(
                accepted, round_index=closing.round, ledger=self._population.ledger, group=closed.group
            )
            self._model.keep(self._rounds.versions_in_use())
            row |= {"train_loss": learning.train_loss, "non_finite": learning.non_finite}
            if closed.group is not None:
                row["clipped"] = learning.clipped
            version = self._rounds.model_version
            if self._releases is not None:
                self._releases.made(version, round_index=closing.round, now_s=closing.time_s)
            if version % self._schedule.evaluate_every == 0 or version == self._schedule.count:
                row |= self._model.evaluate(round_index=closing.round)
        row |= self._model.figures
        self._rounds.learnt(closed, learning.device, learning.loss)
        self._rows.append(row)
        self._observer(row)
        in_time = self._saving_s <= self._schedule.checkpoint_share * (time.perf_counter() - self._wall_start_s)
        if in_time or self._log.num_rows >= _MOST_ROWS:
            self._save()

    def _save(self) -> None:
        """Write the rows since the last checkpoint, then the checkpoint that counts on them."""
        start_s = time.perf_counter()
        previous = self._kept_index
        self._checkpoint += 1
        parts = {"rounds": server_rows(self._rows), "updates": update_rows(self._model.take_updates())}
        release_state: tuple[dict[str, Any], dict[str, npt.NDArray[Any]], Tensors] = ({}, {}, {})
        if self._releases is not None:
            parts["releases"] = release_rows(self._releases.take_changes())
            release_state = self._releases.state()
        self._directory.write_parts(self._checkpoint, {"events": self._log.take(), **parts})
        self._rows = []
        values = {
            "now_s": self._now_s,
            "ended_at_horizon": self._ended_at_horizon,
            "event_sequence": self._log.sequence,
            "metrics_initial": self._metrics_initial,
            "wall_s": self._wall_s(),
        }
        if self._releases is not None:
            values["releases"] = release_state[0]
        arrays = {f"rounds.{name}": column for name, column in self._rounds.state().items()}
        arrays["store_index"] = self._model.store.index
        self._directory.write_checkpoint(
            self._checkpoint,
            Checkpoint(
                values=values,
                arrays=arrays | self._population.state() | release_state[1],
                tensors=self._model.state() | release_state[2],
            ),
        )
        self._kept_index = self._model.store.index.copy()
        self._model.store.keep(previous, self._kept_index)
        self._saving_s += time.perf_counter() - start_s

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
        self._log.sequence = values["event_sequence"]
        self._metrics_initial = values["metrics_initial"]
        self._wall_before_s = values["wall_s"]
        self._model.store.index = checkpoint.arrays["store_index"].copy()
        self._kept_index = self._model.store.index.copy()
        self._model.restore(checkpoint.tensors)
        self._population.restore(checkpoint.arrays)
        if self._releases is not None:
            self._releases.restore(values["releases"], checkpoint.arrays, checkpoint.tensors)
        try:
            self._rounds.restore(of_prefix("rounds.", checkpoint.arrays))
        except ValueError as exc:
            raise InputError(
                f"{self._directory.path / EXPERIMENT} was edited since the run started ({exc}): put [rounds] back as "
                "it was, or start a new run"
            ) from exc


def _group_columns(group: Group, closed_s: float) -> dict[str, Any]:
    """What the server saw of a group: its size, how many were lost at which stage, and how long it took."""
    lost = dict.fromkeys((f"lost_at_{name}" for name in STAGES), 0)
    for stage, name in enumerate(STAGES[: group.played]):
        lost[f"lost_at_{name}"] = int((group.answered == stage).sum())
    columns = {"group": len(group.flights), **lost, "stages_s": group.ended_s - closed_s}
    return columns | {"outcome": "no_sum"} if group.no_sum else columns
