"""Rounds in which a service's devices come again, as its log says; the coordinator decides anew.

Rules:

1. Every check-in of the log comes when it came, also one that was turned away.
2. A device's k-th assignment fares as its k-th one did: its reports come as many seconds later as they did, of as many
   examples, or nothing comes. A device that gets more work than it had begins again with its first story; one that
   never had any is silent.
3. So under the plan of the log the coordinator says what it said, to the same times; under another one, what it would
   have said to devices that behave as they did. A device that would have come again because of another answer does not.
4. Nothing is known, and nothing simulated, of downloads, stages, batteries and eligibility. Accepted devices train, on
   the examples that the experiment deals to their numbers, for as many steps as they said.
5. The log's end is the end.
"""

import heapq
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.events import REASONS, EventLog
from pocketfleet.device_sim.flight import FLIGHT, Flights, no_flights
from pocketfleet.device_sim.population import Population
from pocketfleet.device_sim.recording import Recording, Story
from pocketfleet.device_sim.rounds import ClosedRound, Rounds, of_prefix
from pocketfleet.device_sim.stage_clock import Watch
from pocketfleet.training.coordinator_by_plan import make_coordinator, restore_coordinator
from pocketfleet.training.draws import draw_key
from pocketfleet.training.round import (
    REFUSALS,
    BufferedPlan,
    CheckInCode,
    Float64s,
    Int64s,
    ReportCode,
    RoundClosed,
    RoundPlan,
)
from pocketfleet.training.selection import Selection

__all__ = ["RecordedRounds"]

# What comes: when, its place among what comes then, on which assignment, of how many examples; 0: it is silent.
Coming = tuple[float, float, int, int]
# Before whatever else comes at that time; see ``recorded_run``.
_SILENT = -2.0
_COMING = np.dtype([("time_s", "f8"), ("order", "f8"), ("assignment", "i8"), ("num_examples", "i8")])
_TURNED_AWAY = (CheckInCode.ROUND_FULL, CheckInCode.ALREADY_REPORTED, CheckInCode.NOT_YET)


class RecordedRounds(Rounds):
    """Plays a log.

    Args:
        plan: of the rounds.
        population: whose ledger is kept; its phones do nothing.
        log: of events.
        recording: what is replayed.
        batch_size: of a step, for steps that the log does not tell.
        selection: chooses at the end of a round's window; nothing is learnt for it.
    """

    def __init__(
        self,
        plan: RoundPlan | BufferedPlan,
        population: Population,
        log: EventLog,
        *,
        recording: Recording,
        batch_size: int,
        selection: Selection,
    ) -> None:
        self.under_way = no_flights()
        self._plan = plan
        self._population = population
        self._log = log
        self._recording = recording
        self._batch_size = batch_size
        self._selection = selection
        self._coordinator = make_coordinator(plan, population=len(population.fleet), selection=selection)
        self._next = 0  # check-in of the recording
        self._coming: list[Coming] = []
        self._handed_out = np.zeros(len(population.fleet), dtype=np.int64)
        self._flights: dict[int, Flights] = {}  # by assignment: not over, or in no model yet
        self._latest: dict[int, int] = {}  # a device's assignment
        self._over: set[int] = set()  # those of them whose end is in the log
        self._counts: dict[CheckInCode, int] = {}

    def watch(self, watch: Watch) -> None:
        """Have the coordinator's time counted apart; after ``restore``."""
        self._coordinator = watch(self._coordinator, "coordinator")

    @property
    def model_version(self) -> int:
        """The newest version that was published."""
        return self._coordinator.model_version

    def versions_in_use(self) -> set[int]:
        """Of assignments whose reports may still count: of a buffer."""
        if isinstance(self._plan, RoundPlan):
            return set()
        return {int(flight["model_version"][0]) for flight in self._flights.values()}

    def learnt(self, closed: ClosedRound, device: Int64s, loss: Float64s) -> None:
        """Whoever came came: nothing is learnt for a choice."""
        del closed, device, loss

    def play(self, now_s: float, *, horizon_s: float) -> tuple[float, ClosedRound | None]:
        """Go on until a round closes, or to the log's end."""
        end_s = max(now_s, min(horizon_s, self._recording.end_s))
        self._counts = {}
        closing = None
        while closing is None:
            at_s, order = self._first()
            if at_s > end_s or (at_s == end_s == horizon_s):
                closing = self._closing(end_s)
                break
            if order == _SILENT:
                self._silence()
                continue
            closing = self._closing(at_s)
            if closing is None:
                self._take(at_s, order)
                closing = self._closing(at_s)
        self.under_way = self._still_under_way()
        if closing is None:
            return end_s, None
        return max(now_s, closing.time_s), self._closed(closing)

    def _first(self) -> tuple[float, float]:
        """When the next comes, and its order."""
        recording, at = self._recording, self._next
        check_in = (
            (float(recording.check_in_s[at]), 2.0 * float(recording.sequence[at]))
            if at < len(recording.check_in_s)
            else (math.inf, math.inf)
        )
        return min(check_in, self._coming[0][:2]) if self._coming else check_in

    def _closing(self, now_s: float) -> RoundClosed | None:
        closings = self._coordinator.advance(max(now_s, self._coordinator.now_s))
        assert len(closings) <= 1
        return closings[0] if closings else None

    def _take(self, at_s: float, order: float) -> None:
        if self._coming and self._coming[0][:2] == (at_s, order):
            self._report(heapq.heappop(self._coming))
        else:
            self._check_in(int(self._recording.device[self._next]), at_s)
            self._next += 1

    def _check_in(self, device: int, at_s: float) -> None:
        answer = self._coordinator.check_in_many([device], [at_s])
        code = CheckInCode(int(answer.code[0]))
        self._counts[code] = self._counts.get(code, 0) + 1
        if code is not CheckInCode.ASSIGNED:
            return
        self._withdraw(device, at_s, int(answer.round[0]))
        assignment = int(answer.assignment_id[0])
        told = self._recording.stories.get(device, ())
        story = told[self._handed_out[device] % len(told)] if told else Story(time_s=at_s, reports=(), steps=0)
        self._handed_out[device] += 1
        later_s = at_s - story.time_s
        for report in story.reports:
            coming = (report.time_s + later_s, 2.0 * report.sequence, assignment, report.num_examples)
            heapq.heappush(self._coming, coming)
        if not story.reports:
            deadline_s = at_s + self._plan.deadline_s
            if isinstance(self._plan, RoundPlan):
                deadline_s = self._coordinator.next_deadline_s()
            heapq.heappush(self._coming, (deadline_s, _SILENT, assignment, 0))
        num_examples = story.reports[0].num_examples if story.reports else 0
        round_index = int(answer.round[0])
        self._flights[assignment] = no_flights(
            1,
            assignment_id=assignment,
            device=device,
            round=round_index,
            model_version=answer.model_version,
            batch_seed=int(draw_key(self._population.seed, "batch_seed", round_index, device)) >> 1,
            start_s=at_s,
            end_s=story.reports[0].time_s + later_s if story.reports else math.inf,
            steps=story.steps or -(-num_examples // self._batch_size),
            num_examples=num_examples,
            uplink_bytes=self._recording.update_bytes if story.reports else 0,
        )
        self._latest[device] = assignment
        self._population.ledger.add("assigned", np.array([device]))
        self._log.add(at_s, device, round_index, "assign")

    def _withdraw(self, device: int, at_s: float, round_index: int) -> None:
        """The assignment that a device loses by checking in again, if nothing is to come on it."""
        assignment = self._latest.get(device, -1)
        flight = self._flights.get(assignment)
        if flight is None or assignment in self._over or int(flight["num_examples"][0]):
            return
        if not isinstance(self._plan, RoundPlan) or int(flight["round"][0]) == round_index:
            self._end(assignment, at_s, "drop", "withdrawn")

    def _silence(self) -> None:
        time_s, _, assignment, _ = heapq.heappop(self._coming)
        if assignment in self._flights and assignment not in self._over:
            self._end(assignment, time_s, "drop", "silent")

    def _report(self, coming: Coming) -> None:
        time_s, _, assignment, num_examples = coming
        code = ReportCode(int(self._coordinator.report_many([assignment], [num_examples], [time_s]).code[0]))
        # Sent again, it is no event.
        if assignment in self._flights and assignment not in self._over:
            flight = self._flights[assignment]
            moved = int(flight["uplink_bytes"][0])
            self._log.add(time_s, flight["device"], flight["round"], "upload", bytes=moved)
            self._population.ledger.add("uplink_bytes", flight["device"], moved)
            self._end(assignment, time_s, "report", code.name.lower())

    def _end(self, assignment: int, at_s: float, kind: str, reason: str) -> None:
        assert reason in REASONS
        flight = self._flights[assignment]
        self._log.add(at_s, flight["device"], flight["round"], kind, reason=reason)
        column = "dropped" if kind == "drop" else "accepted" if reason == "accepted" else "rejected"
        self._population.ledger.add(column, flight["device"])
        if column == "accepted":
            self._population.ledger.add("steps", flight["device"], flight["steps"])
            self._over.add(assignment)
        else:
            # Of no use to any model.
            del self._flights[assignment]

    def _closed(self, closing: RoundClosed) -> ClosedRound:
        found = [self._flights.pop(int(assignment)) for assignment in closing.assignment_id]
        self._over -= set(closing.assignment_id.tolist())
        accepted = np.concatenate([no_flights(), *found])
        return ClosedRound(
            closing=closing,
            accepted=accepted[np.argsort(accepted["device"], kind="stable")],
            looks=sum(self._counts.values()),
            turned_away=sum(self._counts.get(code, 0) for code in _TURNED_AWAY),
            held=self._counts.get(CheckInCode.HELD, 0),
            refused=sum(self._counts.get(code, 0) for code in REFUSALS),
        )

    def _still_under_way(self) -> Flights:
        going = [flight for assignment, flight in self._flights.items() if assignment not in self._over]
        return np.concatenate([no_flights(), *going])

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays for a checkpoint."""
        coordinator = {f"coordinator.{name}": column for name, column in self._coordinator.state().items()}
        return {
            "next": np.array(self._next),
            "coming": np.array(self._coming, dtype=_COMING),
            "handed_out": self._handed_out.copy(),
            "flights": np.concatenate([no_flights(), *self._flights.values()]),
            "over": np.array(sorted(self._over), dtype=np.int64),
            **coordinator,
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what ``state`` returned."""
        self._coordinator = restore_coordinator(self._plan, of_prefix("coordinator.", state), selection=self._selection)
        self._next = int(state["next"])
        self._coming = [tuple(row) for row in state["coming"].tolist()]
        self._handed_out = state["handed_out"].copy()
        flights: Flights = state["flights"].astype(FLIGHT)
        self._flights = {int(row["assignment_id"]): flights[place : place + 1] for place, row in enumerate(flights)}
        # A device's newest comes last.
        self._latest = {int(row["device"]): int(row["assignment_id"]) for row in flights}
        self._over = set(state["over"].tolist())
        self.under_way = self._still_under_way()
