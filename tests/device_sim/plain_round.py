"""One synchronous round, one device and one event at a time: slow, obvious, the oracle of ``open_round``."""

import heapq
from dataclasses import dataclass, field

import numpy as np

from pocketfleet.device_sim.attempt import Drop
from pocketfleet.device_sim.look import Look
from pocketfleet.device_sim.open_round import LOOK_EVERY_S
from pocketfleet.device_sim.population import Population
from pocketfleet.training.draws import draw_key, walk, walk_length
from pocketfleet.training.round import RoundPlan
from pocketfleet.training.selection import Selection

# At one time reports come first, then the deadline, then a window's end, then those that look.
REPORT, DEADLINE, WINDOW, LOOK = range(4)


@dataclass
class PlainRound:
    population: Population
    plan: RoundPlan
    round_index: int
    opens_s: float
    horizon_s: float
    events: list[tuple[float, int, int, int]] = field(default_factory=list)  # time, kind, rank, device
    started: list[tuple[int, float]] = field(default_factory=list)
    turned_away: list[tuple[int, float]] = field(default_factory=list)
    looks: int = 0
    selection: Selection | None = None
    admitted: set[int] = field(default_factory=set)
    spent: set[int] = field(default_factory=set)
    held: list[tuple[int, float]] = field(default_factory=list)
    left: list[tuple[int, float]] = field(default_factory=list)
    refused: list[tuple[int, float]] = field(default_factory=list)

    def play(self) -> float:
        """Returns when the round closes, inf if not before the horizon."""
        count = len(self.population.fleet)
        key = draw_key(self.population.seed, "check_in", self.round_index)
        slots, reports, places = self.plan.selected, 0, walk_length(count)
        has_slot: set[int] = set()
        waits: set[int] = set()
        choosing, window = self.plan.selection_window_s > 0.0, False
        looked: set[int] = set()
        for place, device in zip(*(part.tolist() for part in walk(key, count, 0, places)), strict=True):
            self.events.append((self.opens_s + self.plan.pace_s * place / places, LOOK, place, device))
        heapq.heapify(self.events)
        while self.events:
            time_s, kind, rank, device = heapq.heappop(self.events)
            if time_s > self.horizon_s or (time_s == self.horizon_s and kind in (LOOK, WINDOW)):
                return np.inf
            if kind == WINDOW:
                window = False
                device_ = np.array(sorted(waits))
                look = self.population.look(device_, np.full(len(device_), time_s))
                self.looks += len(device_)
                there = device_[look.eligible]
                for gone in device_[~look.eligible].tolist():
                    self.left.append((gone, time_s))
                    heapq.heappush(self.events, (self.again_s(gone, time_s), LOOK, gone, gone))
                waits.clear()
                if len(there) == 0:
                    continue
                choosing = False
                chosen = there
                if len(there) > slots:
                    assert self.selection is not None
                    chosen = self.selection.choose(there, count=slots, round_index=self.round_index)
                self.deadline_s = time_s + self.plan.deadline_s
                heapq.heappush(self.events, (self.deadline_s, DEADLINE, 0, -1))
                for one in there.tolist():
                    if one in chosen:
                        slots -= 1
                        has_slot.add(one)
                        self.start(look.rows(look.device == one), time_s)
                    else:
                        self.turned_away.append((one, time_s))
                continue
            if kind == DEADLINE:
                return time_s
            if kind == REPORT:
                reports += 1
                if reports == self.plan.cohort:
                    return time_s
                continue
            if self.population.ledger.column["refused"][device]:
                continue
            again = device in looked
            looked.add(device)
            if again and device not in has_slot and slots == 0:
                continue
            free_s = float(self.population.ledger.column["free_s"][device])
            if free_s > time_s:
                self.events.append((self.when_free_s(free_s, time_s), LOOK, rank, device))
                heapq.heapify(self.events)
                continue
            look = self.population.look(np.array([device]), np.array([time_s]))
            self.looks += 1
            if not look.eligible[0]:
                heapq.heappush(self.events, (self.again_s(device, time_s), LOOK, rank, device))
            elif not self.admits(device):
                self.refused.append((device, time_s))
                self.population.ledger.column["refused"][device] = True
            elif choosing:
                self.held.append((device, time_s))
                waits.add(device)
                if not window:
                    window = True
                    heapq.heappush(self.events, (time_s + self.plan.selection_window_s, WINDOW, 0, -1))
            elif device in has_slot or slots > 0:
                if not self.started:
                    heapq.heappush(self.events, (time_s + self.plan.deadline_s, DEADLINE, 0, -1))
                    self.deadline_s = time_s + self.plan.deadline_s
                slots -= device not in has_slot
                has_slot.add(device)
                self.start(look, time_s)
            else:
                self.turned_away.append((device, time_s))
        return np.inf

    def start(self, look: Look, time_s: float) -> None:
        device = int(look.device[0])
        self.started.append((device, time_s))
        (flight,) = self.population.start(
            look, round_index=self.round_index, model_version=0, deadline_s=self.deadline_s
        )
        if flight["drop"] == Drop.NONE:
            heapq.heappush(self.events, (float(flight["end_s"]), REPORT, 0, device))
        else:
            heapq.heappush(self.events, (float(flight["free_s"]), LOOK, device, device))

    def admits(self, device: int) -> bool:
        if device in self.spent:
            return False
        if self.plan.population_cap and device not in self.admitted:
            if len(self.admitted) == self.plan.population_cap:
                return False
            self.admitted.add(device)
        return True

    def again_s(self, device: int, time_s: float) -> float:
        if self.plan.pace_s > 0.0:
            return time_s + max(self.plan.pace_s, LOOK_EVERY_S)
        change_s = float(self.population.next_change_s(np.array([device]), np.array([time_s]))[0])
        return min(change_s, time_s + LOOK_EVERY_S)

    def when_free_s(self, free_s: float, time_s: float) -> float:
        while self.plan.pace_s > 0.0 and time_s < free_s:
            time_s += max(self.plan.pace_s, LOOK_EVERY_S)
        return time_s if self.plan.pace_s > 0.0 else free_s
