"""Buffered asynchronous rounds on the virtual clock: slots that devices fill one after another.

There are ``concurrency`` slots. A *round* is the time in which one buffer fills; attempts belong to the round in
which they started, also where their reports count in a later one. Rules:

1. A free slot is offered to devices in an order drawn anew for each walk through the fleet (``draws.walk``); each
   looks at that moment, and the first that may train and is not busy takes it. If nobody of the whole fleet can, it
   is offered again after ``LOOK_EVERY_S``, or when the next device is free if that is earlier.
2. A report frees its slot. A device that drops out says nothing: when its back-off is over it looks once, and takes
   its slot again if it may train; otherwise the slot is free at the assignment's deadline.
3. At one time, attempts end first, a full buffer makes its version next, then devices come.

Within a round nothing depends on the version, so that starts are settled for several slots at once, up to the earliest
time at which one of them is free again, and up to the first that found nobody: that one is offered by itself, to all.
What was settled beyond is taken back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.attempt import Drop
from pocketfleet.device_sim.events import EventLog
from pocketfleet.device_sim.flight import Flights, no_flights
from pocketfleet.device_sim.look import Look
from pocketfleet.device_sim.open_round import LOOK_EVERY_S
from pocketfleet.device_sim.population import Population
from pocketfleet.device_sim.rounds import ClosedRound, Rounds, of_prefix
from pocketfleet.device_sim.stage_clock import Watch
from pocketfleet.training.buffered_coordinator import BufferedCoordinator
from pocketfleet.training.draws import draw_key, walk, walk_length
from pocketfleet.training.round import BufferedPlan, CheckInCode, Float64s, Int64s, ReportCode

__all__ = ["BufferedRounds"]

Floats = npt.NDArray[np.float64]

# How many devices there must be beside those at work for each slot that is filled together with others: so that no two
# slots want one device.
_DEVICES_A_SLOT = 64
# How many devices look for one slot at once at most.
_MOST_A_SLOT = 64
_NOBODY = -1
# ``free_s``: when a slot is next offered; ``device``: to whom alone, or to all; ``expires_s``: when to all, if that one
# may not train.
_SLOT = np.dtype([("free_s", np.float64), ("device", np.int64), ("expires_s", np.float64)])


@dataclass(slots=True)
class _Walk:
    """How far devices were offered slots: how many walks through the fleet before, and places of this one."""

    number: int = 0
    place: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Filled:
    """Who looked and who started for the slots of a batch.

    Attributes:
        looks: that were made, ``[k]``.
        looked_for: which slot of the batch each was for, ``[k]``.
        flights: attempts, in order of their starts, ``[m]``.
        taken: which slot of the batch each took, ``[m]``.
    """

    looks: Look
    looked_for: Int64s
    flights: Flights
    taken: Int64s


class BufferedRounds(Rounds):
    """Rounds that close when their buffer is full."""

    def __init__(self, plan: BufferedPlan, population: Population, log: EventLog) -> None:
        self.under_way = no_flights()
        self._plan = plan
        self._population = population
        self._log = log
        self._coordinator = BufferedCoordinator(plan, population=len(population.fleet))
        self._buffered = no_flights()  # accepted, in the open buffer
        self._slots = np.zeros(plan.concurrency, _SLOT)
        self._slots["device"] = _NOBODY
        self._walk = _Walk()
        self._looks = 0

    def watch(self, watch: Watch) -> None:
        """Have the coordinator's time counted apart; after ``restore``."""
        self._coordinator = watch(self._coordinator, "coordinator")

    @property
    def model_version(self) -> int:
        """The newest version that was published."""
        return self._coordinator.model_version

    def learnt(self, closed: ClosedRound, device: Int64s, loss: Float64s) -> None:
        """A buffer takes whoever comes: nothing is learnt for a choice."""
        del closed, device, loss

    def versions_in_use(self) -> set[int]:
        """Of attempts under way, and of those that lie in the open buffer."""
        flights = np.concatenate([self.under_way, self._buffered])
        return {int(version) for version in np.unique(flights["model_version"])}

    def play(self, now_s: float, *, horizon_s: float) -> tuple[float, ClosedRound | None]:
        """Let devices train until the buffer is full."""
        self._looks = 0
        while True:
            full_s = self._full_s()
            end_s = max(now_s, min(full_s, horizon_s))
            due = np.flatnonzero(self._slots["free_s"] < end_s)
            if len(due) == 0:
                break
            self._offer(due[np.argsort(self._slots["free_s"][due], kind="stable")])
        if full_s > horizon_s:
            self._finish(horizon_s)
            return end_s, None
        self._finish(full_s)
        accepted = self._buffered[np.argsort(self._buffered["device"], kind="stable")]
        self._buffered = no_flights()
        (closing,) = self._coordinator.advance(full_s)
        return end_s, ClosedRound(closing=closing, accepted=accepted, looks=self._looks, turned_away=0)

    def _full_s(self) -> float:
        """When the buffer is full as far as attempts under way tell."""
        reports_s = np.sort(self.under_way["end_s"][self._counts(self.under_way)])
        wanted = self._coordinator.reports_wanted
        return float(reports_s[wanted - 1]) if len(reports_s) >= wanted else np.inf

    def _offer(self, due: Int64s) -> None:
        """Offer free slots, in order of time, to devices; settle those before anything else could happen."""
        spare = len(self._population.fleet) - self._plan.concurrency
        due = due[: max(1, spare // _DEVICES_A_SLOT)]
        free_s = self._slots["free_s"][due]
        filled = self._fill(due, free_s)
        flights, taken = filled.flights, filled.taken
        empty, kept = np.ones(len(due), dtype=np.bool_), self._slots["device"][due] != _NOBODY
        empty[taken] = False
        # Beyond the earliest time at which one of these slots is offered again, another slot may come first.
        again_s = np.concatenate([self._ready(flights)["free_s"], self._slots["expires_s"][due[empty & kept]]])
        settled = free_s <= again_s.min(initial=np.inf)
        lacking = np.flatnonzero(empty & ~kept)
        if len(lacking) and len(due) > 1:
            # Those whom it lacks may have looked for the slots after it.
            settled[lacking[0] :] = False
        if not settled[0]:
            self._population.take_back(flights)
            self._offer(due[:1])
            return
        starts = settled[taken]
        self._population.take_back(flights[~starts])
        seen = filled.looks.rows(settled[filled.looked_for])
        self._population.remember(seen)
        self._looks += len(seen.device)
        self._slots[due[taken[starts]]] = self._ready(flights[starts])
        self._leave(due[empty & settled])
        self._begin(flights[starts])

    def _fill(self, due: Int64s, free_s: Floats) -> _Filled:
        """Find a device for each slot."""
        population, reserved = self._population, self._slots["device"][due]
        empty, looks, flights, taken = np.arange(len(due)), [], [no_flights()], [np.empty(0, dtype=np.int64)]
        offered, looked_for = np.empty(0, dtype=np.int64), []
        # A buffer takes one report a device.
        held = np.concatenate([self._buffered["device"], self.under_way["device"][self._counts(self.under_way)]])
        first = reserved != _NOBODY
        asked, device = empty[first], reserved[first]
        # Devices that a slot is offered to at once, the first of them that may train takes it: few of a small fleet.
        a_slot = min(max(1, len(population.fleet) // (_DEVICES_A_SLOT * len(due))), _MOST_A_SLOT)
        while True:
            free = (population.ledger.column["free_s"][device] <= free_s[asked]) & ~np.isin(device, held)
            look = population.look(device[free], free_s[asked[free]])
            winner, seen = _first_of_each(asked[free], look.eligible)
            looks.append(look.rows(seen))
            looked_for.append(asked[free][seen])
            flights.append(self._start(look.rows(winner)))
            taken.append(asked[free][winner])
            empty = np.setdiff1d(empty, taken[-1])
            offered = np.concatenate([offered, device])
            # A slot that is kept for one device is offered to nobody else.
            open_slots = empty[reserved[empty] == _NOBODY]
            device = self._next_devices(len(open_slots) * a_slot, offered)
            asked = np.repeat(open_slots, a_slot)[: len(device)]
            a_slot = min(2 * a_slot, _MOST_A_SLOT)
            if len(asked) == 0:
                break
        joined, which = np.concatenate(flights), np.concatenate(taken)
        order = np.argsort(joined["start_s"], kind="stable")
        return _Filled(
            looks=Look.joined(looks), looked_for=np.concatenate(looked_for), flights=joined[order], taken=which[order]
        )

    def _start(self, look: Look) -> Flights:
        return self._population.start(
            look,
            round_index=self._coordinator.round,
            model_version=self.model_version,
            deadline_s=look.at_s + self._plan.deadline_s,
        )

    def _next_devices(self, wanted: int, offered: Int64s) -> Int64s:
        """The next devices of the walk, each once a batch; fewer where the whole fleet was offered."""
        population, walked = self._population, self._walk
        places, found = walk_length(len(population.fleet)), np.empty(0, dtype=np.int64)
        while len(found) < wanted and len(offered) + len(found) < len(population.fleet):
            stop = min(walked.place + wanted - len(found), places)
            key = draw_key(population.seed, "check_in", walked.number)
            _, device = walk(key, len(population.fleet), walked.place, stop)
            device = device[~np.isin(device, offered) & ~np.isin(device, found)]
            found = np.concatenate([found, device])
            walked.place = stop
            if stop == places:
                walked.number, walked.place = walked.number + 1, 0
        return found

    def _leave(self, slots: Int64s) -> None:
        """Rules 1 and 2, of slots that nobody took: when each is offered again."""
        kept = self._slots["device"][slots] != _NOBODY
        self._slots["free_s"][slots[kept]] = self._slots["expires_s"][slots[kept]]
        self._slots["device"][slots] = _NOBODY
        moments_s = np.unique(self._slots["free_s"][slots[~kept]])
        freed_s = np.sort(self._population.ledger.column["free_s"]) if len(moments_s) else np.empty(0)
        for now_s in moments_s:
            later_s = freed_s[np.searchsorted(freed_s, now_s, side="right") :][:1]
            # What nobody takes now is left by all: further slots of this moment need not ask.
            free_now = (self._slots["free_s"] == now_s) & (self._slots["device"] == _NOBODY)
            self._slots["free_s"][free_now] = np.min([now_s + LOOK_EVERY_S, *later_s])

    def _ready(self, flights: Flights) -> npt.NDArray[np.void]:
        """Rule 2: when the slots of attempts are offered again, and to whom."""
        slots = np.zeros(len(flights), _SLOT)
        dropped, expires_s = flights["drop"] != Drop.NONE, flights["start_s"] + self._plan.deadline_s
        returns = dropped & (flights["free_s"] < expires_s)
        slots["free_s"] = np.select([returns, dropped], [flights["free_s"], expires_s], flights["end_s"])
        slots["device"] = np.where(returns, flights["device"], _NOBODY)
        slots["expires_s"] = expires_s
        return slots

    def _begin(self, flights: Flights) -> None:
        """Attempts start, in order of time; those under way that end before are over first."""
        # Starts between two ends are brought together.
        ends = np.searchsorted(np.sort(self.under_way["end_s"]), flights["start_s"], side="right")
        for group in np.split(flights, np.flatnonzero(np.diff(ends)) + 1):
            if len(group) == 0:
                continue
            self._finish(float(group["start_s"][0]))
            answer = self._coordinator.check_in_many(group["device"], group["start_s"])
            if np.any(answer.code != CheckInCode.ASSIGNED):
                raise AssertionError(f"from {group['start_s'][0]} s on: a device that started was turned away")
            group["assignment_id"] = answer.assignment_id
            self._log.add(group["start_s"], group["device"], group["round"], "assign")
            self.under_way = np.concatenate([self.under_way, group])

    def _finish(self, end_s: float) -> None:
        """Attempts that end by ``end_s`` report, or have dropped out; but not beyond a full buffer."""
        over = self.under_way["end_s"] <= end_s
        flights = self.under_way[over]
        flights = flights[np.argsort(flights["end_s"], kind="stable")]
        reports = np.flatnonzero(flights["drop"] == Drop.NONE)
        # Of several reports at the time at which the buffer is full, those beyond it are the next round's.
        counted = np.cumsum(self._counts(flights[reports]))
        used = reports[: int(np.searchsorted(counted, self._coordinator.reports_wanted)) + 1]
        stop = len(flights) if len(used) == len(reports) else int(reports[len(used)])
        self.under_way = np.concatenate([flights[stop:], self.under_way[~over]])
        flights = flights[:stop]
        code = np.full(len(flights), ReportCode.UNKNOWN, dtype=np.int8)
        reporting = flights[used]
        answer = self._coordinator.report_many(
            reporting["assignment_id"], reporting["num_examples"], reporting["end_s"]
        )
        code[used] = answer.code
        self._population.end(flights, code)
        self._buffered = np.concatenate([self._buffered, flights[code == ReportCode.ACCEPTED]])

    def _counts(self, flights: Flights) -> npt.NDArray[np.bool_]:
        """Which attempts end with a report that this round accepts."""
        staleness = self.model_version - flights["model_version"]
        counts: npt.NDArray[np.bool_] = (flights["drop"] == Drop.NONE) & (staleness <= self._plan.max_staleness)
        return counts

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays for a checkpoint."""
        coordinator = {f"coordinator.{name}": column for name, column in self._coordinator.state().items()}
        return {
            "under_way": self.under_way,
            "buffered": self._buffered,
            "slots": self._slots.copy(),
            "walk": np.array([self._walk.number, self._walk.place]),
            **coordinator,
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what ``state`` returned."""
        self._coordinator = BufferedCoordinator.restore(self._plan, of_prefix("coordinator.", state))
        self.under_way, self._buffered, self._slots = state["under_way"], state["buffered"], state["slots"].copy()
        self._walk = _Walk(*(int(number) for number in state["walk"]))


def _first_of_each(slot: Int64s, eligible: npt.NDArray[np.bool_]) -> tuple[Int64s, npt.NDArray[np.bool_]]:
    """Of looks in groups by slot: the first eligible one of each, and which looks were up to it."""
    found = np.flatnonzero(eligible)
    of_slot, first = np.unique(slot[found], return_index=True)
    winner = found[first]
    last = np.full(int(slot.max(initial=0)) + 1, len(slot))
    last[of_slot] = winner
    return winner, np.arange(len(slot)) <= last[slot]
