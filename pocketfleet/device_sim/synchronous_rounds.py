"""Synchronous rounds on the virtual clock: each one is played, then told to the coordinator.

The walk of a round:

1. ``OpenRound`` plays it: devices come, those that may train start attempts, whose ends are settled at once.
2. ``check_ins.check_in``: those that came check in with the ``Coordinator``, which assigns, holds or turns away.
3. ``_finish``: attempts that end by the time the round closes report (accepted or rejected) or have dropped out;
   the others go on, and will be late.
4. ``SecureStages``, under secure aggregation: the accepted devices go through the stages of a sum that hides its parts;
   the next round opens when these are over.
5. ``learnt``: the selection is told what the server saw of the round.

Events are ordered by (time, order of logging). At one time, attempts end first, then a deadline closes, then devices
come.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.attempt import Drop
from pocketfleet.device_sim.check_ins import check_in
from pocketfleet.device_sim.events import EventLog
from pocketfleet.device_sim.flight import Flights, no_flights
from pocketfleet.device_sim.open_round import OpenRound
from pocketfleet.device_sim.population import Population
from pocketfleet.device_sim.rounds import ClosedRound, Rounds, of_prefix
from pocketfleet.device_sim.secure_stages import SecureStages
from pocketfleet.device_sim.stage_clock import Watch
from pocketfleet.training.coordinator import Coordinator
from pocketfleet.training.round import Float64s, Int64s, ReportCode, RoundPlan
from pocketfleet.training.selection import Feedback, Selection, Uniform

__all__ = ["SynchronousRounds"]


class SynchronousRounds(Rounds):
    """Rounds that close with the cohort's last report or at their deadline."""

    def __init__(
        self,
        plan: RoundPlan,
        population: Population,
        log: EventLog,
        *,
        selection: Selection | None = None,
        stages: SecureStages | None = None,
    ) -> None:
        """Take the parts; without a selection the choice is uniform, without stages reports are updates."""
        devices = len(population.fleet)
        self._selection = selection or Uniform(seed=population.seed, population=devices)
        self._assigned = no_flights()  # of the round that closed last
        self.under_way = no_flights()
        self._plan = plan
        self._population = population
        self._log = log
        self._coordinator = Coordinator(plan, population=devices, selection=self._selection)
        self._stages = stages

    def watch(self, watch: Watch) -> None:
        """Have the coordinator's time counted apart; after ``restore``."""
        self._coordinator = watch(self._coordinator, "coordinator")

    @property
    def model_version(self) -> int:
        """The newest version that was published."""
        return self._coordinator.model_version

    @property
    def num_spent(self) -> int:
        """See the coordinator's rule 15."""
        return self._coordinator.admission.num_spent

    @property
    def exhausted(self) -> bool:
        """Likewise."""
        return self._coordinator.exhausted

    def versions_in_use(self) -> set[int]:
        """None: what comes late is not used."""
        return set()

    def play(self, now_s: float, *, horizon_s: float) -> tuple[float, ClosedRound | None]:
        """Play one round, or as much of it as there is before the horizon."""
        played = OpenRound(
            self._population,
            self._plan,
            round_index=self._coordinator.round,
            model_version=self._coordinator.model_version,
            opens_s=max(now_s, self._coordinator.opens_s),
            horizon_s=horizon_s,
            selection=self._selection,
            admission=self._coordinator.admission,
        ).play()
        # A horizon that was moved before a resumed run does not set the clock back.
        end_s = max(now_s, min(played.closes_s, horizon_s))
        flights = self._assigned = check_in(self._coordinator, played)
        self.under_way = np.concatenate([self.under_way, flights])
        accepted = self._finish(end_s)
        # After the ends: a device may start again at the very time at which its late report came.
        self._log.add(flights["start_s"], flights["device"], flights["round"], "assign")
        closings = self._coordinator.advance(end_s)
        if not closings:
            return end_s, None
        closing = closings[0]
        accepted, group = accepted[np.argsort(accepted["device"], kind="stable")], None
        if self._stages is not None and closing.succeeded:
            group = self._stages.play(accepted, round_index=closing.round, opens_s=closing.time_s)
            accepted, end_s = accepted[group.in_sum], max(end_s, group.ended_s)
        closed = ClosedRound(
            closing=closing,
            accepted=accepted,
            looks=played.looks,
            turned_away=len(played.turned_away),
            held=len(played.held.device),
            candidates=played.candidates,
            refused=len(played.refused.device),
            group=group,
        )
        return end_s, closed

    def learnt(self, closed: ClosedRound, device: Int64s, loss: Float64s) -> None:
        """Tell the selection of a round that closed and of the losses ``[k]`` that its devices ``[k]`` reported."""
        if self._plan.selection_window_s == 0.0:
            return
        # A device that dropped out and came back counts from its last assignment.
        last = self._assigned[::-1]
        last = last[np.unique(last["device"], return_index=True)[1]]
        reported = np.isin(last["device"], closed.accepted["device"])
        losses = np.full(len(last), np.nan)
        losses[np.searchsorted(last["device"], device)] = loss
        end_s = np.where(reported, last["end_s"], closed.closing.time_s)
        self._selection.learn(
            Feedback(
                round=closed.closing.round,
                device=last["device"].copy(),
                num_examples=np.where(reported, last["num_examples"], 0),
                loss=losses,
                duration_s=end_s - last["start_s"],
            )
        )

    def _finish(self, end_s: float) -> Flights:
        """Attempts that end by ``end_s`` report or have dropped out; returns those whose reports were accepted."""
        flights = self.under_way[np.argsort(self.under_way["end_s"], kind="stable")]
        over = flights["end_s"] <= end_s
        self.under_way, flights = flights[~over], flights[over]
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

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays for a checkpoint."""
        coordinator = {f"coordinator.{name}": column for name, column in self._coordinator.state().items()}
        selection = {f"selection.{name}": column for name, column in self._selection.state().items()}
        return {"under_way": self.under_way, **coordinator, **selection}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what ``state`` returned."""
        self.under_way = state["under_way"]
        self._selection.restore(of_prefix("selection.", state))
        self._coordinator = Coordinator.restore(self._plan, of_prefix("coordinator.", state), selection=self._selection)
