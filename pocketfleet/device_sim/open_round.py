"""One synchronous round, played to its end: who comes when, what becomes of them, when the round closes.

A device's story within a round depends on no other device's, but for two things: the free slots, and when the round
closes. So stories are worked out for many devices at once, and those that begin too late are taken back. Rules:

1. When a round opens, devices come in an order drawn anew for it (``draws.walk``): all at once, or, with ``pace_s``
   above 0, spread evenly over ``pace_s`` seconds. So a million devices do not all ask at once (pace steering, as in
   Bonawitz et al. 2019, arXiv:1902.01046, section 2.3).
2. One that may not train, or is busy, comes again: after ``pace_s``, but not before ``LOOK_EVERY_S``; without a pace
   when its conditions change, when it is free again, and at the latest after ``LOOK_EVERY_S``.
3. One that may train checks in. While slots are free it gets an assignment and starts, afterwards it is turned away.
   Those that come again later than the last slot was taken are not counted.
   With a selection window, whoever checks in waits until its end and looks again then: of those that still may train,
   the chosen start and the others are turned away; those that may not are gone, and come again by rule 2. Slots that
   are left go to those who come first. Where all are gone, the next to check in begins a new window.
4. One that drops out backs off, looks again and, if it may train, takes the slot that is still its own.
5. The round closes with the cohort's last report or at its deadline, whichever comes first; nobody comes from then on.
6. One that checks in and is not admitted to a full population, or is in as many models as one may be, never comes
   again.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.attempt import Drop
from pocketfleet.device_sim.flight import no_flights
from pocketfleet.device_sim.look import Look
from pocketfleet.device_sim.played_round import PlayedRound
from pocketfleet.device_sim.population import Population
from pocketfleet.training.admission import Admission
from pocketfleet.training.draws import draw_key, walk, walk_length
from pocketfleet.training.round import RoundPlan
from pocketfleet.training.selection import Selection, chosen_of

__all__ = ["LOOK_EVERY_S", "OpenRound"]

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

# The shortest period of a periodic job: JobInfo.getMinPeriodMillis, 15 min (developer.android.com, android.app.job).
LOOK_EVERY_S = 900.0
# Places of the walk that are looked at together: enough for arrays to pay, few enough not to look far beyond the need.
_FEWEST_PLACES, _MOST_PLACES = 256, 1 << 16
# What share of the devices is guessed to be eligible before any was looked at.
_FIRST_GUESS = 0.1


class OpenRound:
    """Plays one round; afterwards the population is as the round leaves it.

    Args:
        population: whose devices come.
        plan: of the round.
        round_index: which it is.
        model_version: what its devices train from.
        opens_s: when it takes check-ins.
        horizon_s: nothing at or after it is of interest.
        selection: chooses at a window's end; needed where the plan has a window.
        admission: who is admitted so far; a copy is taken. Everybody where it is left out.
    """

    def __init__(
        self,
        population: Population,
        plan: RoundPlan,
        *,
        round_index: int,
        model_version: int,
        opens_s: float,
        horizon_s: float,
        selection: Selection | None = None,
        admission: Admission | None = None,
    ) -> None:
        self._population = population
        self._plan = plan
        self._round_index = round_index
        self._model_version = model_version
        self._opens_s = opens_s
        self._horizon_s = horizon_s
        self._slots = plan.selected
        self._deadline_s = np.inf
        self._reports_s = np.empty(0)  # when the attempts so far report, sorted
        self._flights = [no_flights()]
        self._waiting = np.empty(0, dtype=np.int64)
        self._waiting_until_s = np.empty(0)
        nobody = Look.of_nobody()
        self._looks = [nobody]  # the first of them of nobody
        self._noted = 0  # looks that were written down before the end
        self._turned_away = [nobody]
        self._share = _FIRST_GUESS
        self._selection = selection
        self._admission = (admission or Admission(cap=0, population=0)).copy()
        self._choosing = plan.selection_window_s > 0.0
        self._window_ends_s = np.inf
        self._in_window = [nobody]  # who waits now
        self._held, self._left, self._refused = [nobody], [nobody], [nobody]
        self._candidates = 0

    def play(self) -> PlayedRound:
        """Let everybody come; see the module's rules."""
        for devices, at_s in self._walk():
            self._come(devices, at_s)
        self._fill()
        self._come_back()
        return self._played()

    def _closes_s(self) -> float:
        """When the round closes as far as is known; later attempts can only make it earlier."""
        cohort = self._plan.cohort
        complete_s = float(self._reports_s[cohort - 1]) if len(self._reports_s) >= cohort else np.inf
        return min(complete_s, self._deadline_s)

    def _end_s(self) -> float:
        return min(self._closes_s(), self._horizon_s)

    def _walk(self) -> Iterator[tuple[Int64s, Floats]]:
        """Devices and when each comes for the first time, stretch by stretch, until the round is over."""
        count, pace_s = len(self._population.fleet), self._plan.pace_s
        key, places = draw_key(self._population.seed, "check_in", self._round_index), walk_length(count)
        start = 0
        while start < places and self._opens_s + pace_s * start / places < self._end_s():
            wanted = int(1.2 * self._slots / self._share) * places // count
            stop = places if pace_s == 0.0 else start + min(max(wanted, _FEWEST_PLACES), _MOST_PLACES)
            place, device = walk(key, count, start, min(stop, places))
            at_s = self._opens_s + pace_s * place / places
            early = at_s < self._end_s()
            yield device[early], at_s[early]
            start = stop

    def _come(self, device: Int64s, at_s: Floats) -> None:
        """Devices come for the first time; ``[n]``, in order of time."""
        if self._plan.population_cap or self._plan.max_participations:
            comes = ~self._population.ledger.column["refused"][device]
            device, at_s = device[comes], at_s[comes]
        free_s = self._population.ledger.column["free_s"][device]
        busy = free_s > at_s
        look = self._look(device[~busy], at_s[~busy])
        if len(look.device):
            self._share = max(float(look.eligible.mean()), 0.01)
        eligible = self._admit(self._hold(look.rows(look.eligible)))
        started = self._start(eligible, slots=self._slots)
        self._slots -= started
        self._turned_away.append(eligible.rows(np.arange(started, len(eligible.device))))
        if self._slots > 0:
            unable = look.rows(~look.eligible)
            again_s = np.concatenate([self._again_s(unable.device, unable.at_s), self._freed_s(free_s, at_s)[busy]])
            self._waiting = np.concatenate([self._waiting, unable.device, device[busy]])
            self._waiting_until_s = np.concatenate([self._waiting_until_s, again_s])

    def _admit(self, look: Look, *, at_most: int | None = None) -> Look:
        """Rule 6, in order of time: who checks in and is admitted; with ``at_most``, no others come after so many."""
        allowed = self._admission.allowed(look.device)
        if allowed is None:
            return look
        if at_most is not None:
            come = (allowed.cumsum() - allowed) < at_most
            look, allowed = look.rows(come), allowed[come]
        self._refused.append(look.rows(~allowed))
        self._admission.admit(look.device[allowed])
        return look.rows(allowed)

    def _hold(self, eligible: Look) -> Look:
        """Rule 3: who checks in while the window is open waits; returns those that come after its end."""
        while self._choosing and len(eligible.device):
            if self._window_ends_s == np.inf:
                allowed = self._admission.allowed(eligible.device)
                first = 0 if allowed is None else int(allowed.argmax())
                if allowed is not None and not allowed[first]:
                    break
                self._window_ends_s = float(eligible.at_s[first]) + self._plan.selection_window_s
            # At least the one that began it, however short the window.
            early = (eligible.at_s < self._window_ends_s) | (np.arange(len(eligible.device)) == 0)
            self._in_window.append(self._admit(eligible.rows(early)))
            eligible = eligible.rows(~early)
            if len(eligible.device):
                self._choose()
        return eligible

    def _choose(self) -> None:
        """Rule 3 at the window's end: the chosen start."""
        held, ends_s = Look.joined(self._in_window), self._window_ends_s
        self._held.append(held)
        self._in_window, self._window_ends_s = [held.rows(held.device[:0])], np.inf
        device = np.sort(held.device)
        look = self._look(device, np.full(len(device), ends_s))
        there, gone = look.rows(look.eligible), look.rows(~look.eligible)
        self._left.append(gone)
        self._waiting = np.concatenate([self._waiting, gone.device])
        self._waiting_until_s = np.concatenate([self._waiting_until_s, self._again_s(gone.device, gone.at_s)])
        if len(there.device) == 0 or self._selection is None:
            return
        self._choosing, self._candidates = False, len(there.device)
        chosen = chosen_of(self._selection, there.device, count=self._slots, round_index=self._round_index)
        starts = np.isin(there.device, chosen)
        self._slots -= self._start(there.rows(starts), slots=self._slots)
        self._turned_away.append(there.rows(~starts))

    def _look(self, device: Int64s, at_s: Floats) -> Look:
        look = self._population.look(device, at_s)
        self._looks.append(look)
        return look

    def _again_s(self, device: Int64s, at_s: Floats) -> Floats:
        """Rule 2, of those that may not train."""
        if self._plan.pace_s > 0.0:
            return at_s + self._again_after_s
        return np.minimum(self._population.next_change_s(device, at_s), at_s + LOOK_EVERY_S)

    def _freed_s(self, free_s: Floats, at_s: Floats) -> Floats:
        """Rule 2, of those that are busy: with a pace, the first of their times at which they are free."""
        again_s = self._again_after_s
        return free_s if self._plan.pace_s == 0.0 else at_s + again_s * np.ceil((free_s - at_s) / again_s)

    @property
    def _again_after_s(self) -> float:
        return max(self._plan.pace_s, LOOK_EVERY_S)

    def _start(self, look: Look, *, slots: int) -> int:
        """The first ``slots`` of eligible devices, in order of time, start; returns how many."""
        look = look.rows(np.arange(min(slots, len(look.device))))
        if len(look.device) == 0:
            return 0
        self._deadline_s = min(self._deadline_s, float(look.at_s[0]) + self._plan.deadline_s)
        look = look.rows(look.at_s < self._end_s())
        flights = self._population.start(
            look, round_index=self._round_index, model_version=self._model_version, deadline_s=self._deadline_s
        )
        self._flights.append(flights)
        reports_s = flights["end_s"][flights["drop"] == Drop.NONE]
        self._reports_s = np.sort(np.concatenate([self._reports_s, reports_s]))
        return len(flights)

    def _fill(self) -> None:
        """While slots are free, those who could not start yet come again."""
        first_looks, self._looks = self._looks, self._looks[:1]
        while self._slots > 0 and (len(self._waiting) or self._window_ends_s < np.inf):
            asked, started = self._waiting, 0
            first_s = float(self._waiting_until_s.min(initial=np.inf))
            if self._window_ends_s <= first_s and self._window_ends_s < self._end_s():
                self._choose()
            elif first_s >= self._end_s():
                break
            else:
                started = self._come_again(first_s)
                self._slots -= started
            if self._slots == 0:
                self._uncount(asked, chosen=started == 0)
        self._looks = first_looks + self._looks[1:]

    def _come_again(self, first_s: float) -> int:
        """Those who wait come from ``first_s`` on, for a while; returns how many start."""
        if self._deadline_s == np.inf:
            self._note_looks(first_s)
        until_s = min(first_s + LOOK_EVERY_S, self._end_s(), self._window_ends_s)
        eligible, self._waiting, self._waiting_until_s = self._wait(self._waiting, self._waiting_until_s, until_s)
        eligible = self._admit(self._hold(eligible), at_most=self._slots)
        return self._start(eligible, slots=self._slots)

    def _uncount(self, asked: Int64s, *, chosen: bool) -> None:
        """Rule 3: drop looks after the last slot was taken, by one of ``asked``, or by a choice, whose look is last."""
        last = self._flights[-1][-1]
        filled_s = float(last["start_s"])
        if chosen:
            self._looks[:-1] = [look.rows(look.at_s < filled_s) for look in self._looks[:-1]]
            return
        order = np.argsort(asked)
        for number, look in enumerate(self._looks):
            # At the very time of the last start those count that come before it.
            tied = np.flatnonzero(look.at_s == filled_s)
            place = np.searchsorted(asked, [last["device"], *look.device[tied]], sorter=order)
            ranks = order[np.minimum(place, len(order) - 1)]
            keep = look.at_s < filled_s
            keep[tied] = ranks[1:] <= ranks[0]
            self._looks[number] = look.rows(keep)

    def _note_looks(self, until_s: float) -> None:
        """Write down looks that nothing can take back: a round that nobody can start in may last for weeks."""
        looks = Look.joined(self._looks)
        past = looks.at_s <= until_s
        self._population.remember(looks.rows(past))
        self._noted += int(past.sum())
        self._looks = [self._looks[0].rows(np.arange(0)), looks.rows(~past)]

    def _wait(self, device: Int64s, again_s: Floats, until_s: float) -> tuple[Look, Int64s, Floats]:
        """Let devices come again and again until they may train, or ``until_s``.

        Returns:
            The looks at which they may train, in order of time and then as given; the devices left over, and when they
            come next.
        """
        again_s, due = again_s.copy(), np.flatnonzero(again_s < until_s)
        found, found_row = [Look.of_nobody()], [due[:0]]
        while len(due):
            look = self._look(device[due], again_s[due])
            found.append(look.rows(look.eligible))
            found_row.append(due[look.eligible])
            again_s[due[look.eligible]] = np.nan
            unable = due[~look.eligible]
            again_s[unable] = self._again_s(device[unable], again_s[unable])
            due = unable[again_s[unable] < until_s]
        eligible, waits = Look.joined(found), ~np.isnan(again_s)
        order = np.lexsort((np.concatenate(found_row), eligible.at_s))
        return eligible.rows(order), device[waits], again_s[waits]

    def _come_back(self) -> None:
        """Rule 4, as often as there is time."""
        last = 0
        while last < len(self._flights):
            flights = np.concatenate(self._flights[last:])
            last = len(self._flights)
            dropped = flights[(flights["drop"] != Drop.NONE) & (flights["start_s"] < self._end_s())]
            eligible, _, _ = self._wait(dropped["device"], dropped["free_s"], self._end_s())
            self._start(eligible, slots=len(eligible.device))

    def _played(self) -> PlayedRound:
        """Rule 5: take back what began too late, and write down what happened."""
        closes_s, end_s = self._closes_s(), self._end_s()
        for flights in reversed(self._flights):
            self._population.take_back(flights[flights["start_s"] >= end_s])
        flights = np.concatenate(self._flights)
        flights = flights[flights["start_s"] < end_s]
        looks, turned_away = Look.joined(self._looks), Look.joined(self._turned_away)
        looks, turned_away = looks.rows(looks.at_s < end_s), turned_away.rows(turned_away.at_s < end_s)
        self._population.remember(looks)
        refused = Look.joined(self._refused)
        refused = refused.rows(refused.at_s < end_s)
        self._population.ledger.column["refused"][refused.device] = True
        return PlayedRound(
            flights=flights[np.argsort(flights["start_s"], kind="stable")],
            turned_away=turned_away.device,
            turned_away_s=turned_away.at_s,
            closes_s=closes_s if closes_s <= self._horizon_s else np.inf,
            looks=self._noted + len(looks.device),
            held=Look.joined(self._held + self._in_window),
            left=Look.joined(self._left),
            candidates=self._candidates,
            refused=refused,
        )
