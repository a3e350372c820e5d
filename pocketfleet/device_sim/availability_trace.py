"""Days that were recorded: an availability whose states are looked up in a trace's events.

``flash_day`` draws days, this replays them. How a trace is written is in ``trace_events``. Rules:

1. *State.* ``screen_on`` to ``screen_off`` a phone is in use, else idle; ``charge_on`` to ``charge_off`` it charges;
   ``wifi_on`` to ``wifi_off`` it is on unmetered Wi-Fi. An event holds from its time on; one that says what is so
   already changes nothing; of contradictory ones at the same time the later row holds.
2. *Before a device's first event* of a condition the opposite held: a first event is a change. A device without any
   event of a condition is idle, does not charge, is off Wi-Fi; but a condition of which no device has an event was not
   recorded, and holds always.
3. *After the last event* (``repeat``): ``days``: the recording repeats, from the midnight before a device's first event
   to the one after its last (at its ``end``, if it has one), hours of the day staying what they are; ``recording``:
   it repeats from the first event to the last or ``end``, whatever the hour; ``never``: the last state stays. Devices
   repeat on their own, also back to time 0. What happens at the very end of a recording has no time to hold.
4. *Clock.* ``shift_s`` is added to all times: by -8 h a trace of Beijing's clock runs on a clock of UTC. Times are
   rounded to 1/1024 s, sums of which are exact, so ``state`` at ``next_change_s`` is the changed one, to the bit.
5. *Always.* A condition that is to hold always does so whatever was recorded.
6. *Who is who.* Recorded devices, sorted by name, are shuffled by the seed and dealt to devices 0, 1, 2, ... in turn,
   all of them before any a second time: a smaller fleet is a sample, in a larger one some live the same days. One
   device more changes no other.
7. Memory is 9 bytes an event that changes a state, however many devices there are.
"""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.day_changes import CHARGING, IDLE, WIFI, DayChanges, DayState
from pocketfleet.device_sim.place import always_home
from pocketfleet.device_sim.trace_events import EVENTS, TraceEvents
from pocketfleet.training.draws import draw_key, permutation

__all__ = ["Repeat", "TraceAvailability"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]

Repeat = Literal["days", "recording", "never"]

_DAY_S = 86400.0
# A power of two, so that multiples of 1 / 1024 s below 2**43 s are exact float64 numbers, and so are their sums.
_TICKS_PER_S = 1024.0
# Longer than any run, at which such sums are still exact: the period of what never repeats.
_FOREVER_S = 2.0**42
# The conditions in the order of ``EVENTS``, as bits of a state, and what holds where a device has no such event.
_WITHOUT_EVENT = {IDLE: True, CHARGING: False, WIFI: False}
_END = EVENTS.index("end")


class TraceAvailability:
    """The recorded days, dealt to the devices of a seed; see the module's rules."""

    def __init__(
        self, events: TraceEvents, *, seed: int, repeat: Repeat = "days", shift_s: float = 0.0, always: int = 0
    ) -> None:
        shift_s = float(_on_grid(shift_s))
        rows = _Rows.of(events)
        start_s, self._period_s = rows.recording(repeat, shift_s=shift_s)
        self._edges = _Edges.of(rows, start_s=start_s, period_s=self._period_s, always=np.uint8(always))
        self._origin_s = start_s + shift_s
        self._repeats = repeat != "never"
        self._names = np.array(events.names, dtype=object)
        self._dealt = permutation(draw_key(seed, "trace.devices"), len(events.names))

    def state(self, devices: npt.ArrayLike, now_s: float | Floats) -> DayState:
        """What each device is at ``now_s``.

        Args:
            devices: ``[n]``.
            now_s: virtual time, one for all or ``[n]``; 0 or more.
        """
        code = self._edges.code[self._look(devices, now_s).edge]
        return DayState(idle=(code & IDLE) > 0, charging=(code & CHARGING) > 0, wifi=(code & WIFI) > 0)

    def next_change_s(self, devices: npt.ArrayLike, now_s: float | Floats) -> Floats:
        """When the state of each device next differs, later than ``now_s``; infinite if never; ``float64 [n]``."""
        seen = self._look(devices, now_s)
        first, count = self._changes_a_turn(seen.recorded)
        number = seen.number(first, count) + 1
        never = (count == 0) | (number >= count if not self._repeats else False)
        return np.where(never, np.inf, self._change(seen.recorded, number)[0])

    def changes(self, devices: npt.ArrayLike, from_s: float | Floats, until_s: float | Floats) -> DayChanges:
        """Every change of devices after ``from_s`` and before ``until_s``; each one for all or ``[n]``."""
        device, start_s = _columns(devices, from_s)
        _, end_s = _columns(devices, until_s)
        seen, then = self._look(device, start_s), self._look(device, end_s)
        turn = self._changes_a_turn(seen.recorded)
        first, last = seen.number(*turn), then.number(*turn)
        # What changes at the end is not before it.
        last -= self._change(seen.recorded, last)[0] == end_s
        number = first[:, np.newaxis] + 1 + np.arange(int((last - first).max(initial=0)))
        within = number <= last[:, np.newaxis]
        time_s, edge = self._change(seen.recorded[:, np.newaxis], np.minimum(number, last[:, np.newaxis]))
        edge = np.where(last[:, np.newaxis] > first[:, np.newaxis], edge, seen.edge[:, np.newaxis])
        code = self._edges.code[np.concatenate([seen.edge[:, np.newaxis], edge], axis=1)]
        return DayChanges(from_s=start_s, until_s=end_s, time_s=np.where(within, time_s, np.inf), code=code)

    def place(self, devices: npt.ArrayLike, now_s: float | Floats) -> npt.NDArray[np.int8]:
        """At home: a recording tells no places."""
        del now_s
        return always_home(devices)

    def local_s(self, devices: npt.ArrayLike, now_s: float | Floats) -> Floats:
        """``now_s``: a recording's clock is everyone's."""
        return np.broadcast_to(np.asarray(now_s, dtype=np.float64), np.atleast_1d(devices).shape)

    def recorded(self, devices: npt.ArrayLike) -> npt.NDArray[np.object_]:
        """Which recorded device's days each device lives, by name, ``[n]``."""
        return self._names[self._dealt[np.asarray(devices, dtype=np.int64) % len(self._dealt)]]

    def _look(self, devices: npt.ArrayLike, now_s: float | Floats) -> "_Seen":
        device, now_s = _columns(devices, now_s)
        recorded = self._dealt[device % len(self._dealt)]
        origin_s, period_s = self._origin_s[recorded], self._period_s[recorded]
        turn = np.floor((now_s - origin_s) / period_s)
        # A quotient or a difference may be rounded up to the next boundary; these comparisons are exact.
        turn -= origin_s + turn * period_s > now_s
        base_s = origin_s + turn * period_s
        edge = self._edges.find(recorded, now_s - base_s)
        edge -= base_s + self._edges.at_s[edge] > now_s
        return _Seen(recorded=recorded, turn=turn.astype(np.int64), edge=edge)

    def _changes_a_turn(self, recorded: Int64s) -> tuple[Int64s, Int64s]:
        """The first edge that is a change, and how many are, in one turn of each recording."""
        first, last = self._edges.first[recorded], self._edges.first[recorded + 1] - 1
        # At the first edge nothing changes where the turn before ended in this state.
        goes_on = self._edges.code[first] == self._edges.code[last]
        return first + goes_on, last + 1 - first - goes_on

    def _change(self, recorded: Int64s, number: Int64s) -> tuple[Floats, Int64s]:
        """Time and edge of changes by number, counted from the first of turn 0; shapes that broadcast together."""
        first, count = self._changes_a_turn(recorded)
        turn, place = np.divmod(number, np.maximum(count, 1))
        edge = np.minimum(first + place, len(self._edges.at_s) - 1)
        return self._origin_s[recorded] + turn * self._period_s[recorded] + self._edges.at_s[edge], edge


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """Where devices are in their recordings, ``[n]`` each: in which, in which turn of it, and the last edge."""

    recorded: Int64s
    turn: Int64s
    edge: Int64s

    def number(self, first: Int64s, count: Int64s) -> Int64s:
        """The last change's number, counted from the first of turn 0."""
        return self.turn * count + self.edge - first


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """A trace's events sorted by device and time; ``first [devices + 1]`` bounds each device's."""

    device: Int64s
    time_s: Floats
    event: Int64s
    first: Int64s

    @classmethod
    def of(cls, events: TraceEvents) -> Self:
        time_s = _on_grid(events.time_s)
        # Stable: rows of equal times stay in their order, but ``end`` comes after them.
        order = np.lexsort((events.event == _END, time_s, events.device))
        device = events.device[order]
        first = np.searchsorted(device, np.arange(len(events.names) + 1)).astype(np.int64)
        return cls(device=device, time_s=time_s[order], event=events.event[order], first=first)

    def recording(self, repeat: Repeat, *, shift_s: float) -> tuple[Floats, Floats]:
        """When each device's recording starts, in the trace's time, and how long it is until it repeats."""
        first_s, last_s = self.time_s[self.first[:-1]], self.time_s[self.first[1:] - 1]
        if repeat == "never":
            # So early that the shifted recording holds time 0, in any time zone.
            return np.full(len(first_s), -max(shift_s, 0.0) - _DAY_S), np.full(len(first_s), _FOREVER_S)
        if repeat == "recording":
            start_s, stop_s = first_s, last_s
        else:
            ended = self.event[self.first[1:] - 1] == _END
            start_s = np.floor(first_s / _DAY_S) * _DAY_S
            stop_s = np.where(ended, np.ceil(last_s / _DAY_S), np.floor(last_s / _DAY_S) + 1.0) * _DAY_S
        # A recording without length is a state for ever, whatever its period.
        return start_s, np.where(stop_s > start_s, stop_s - start_s, _DAY_S)

    def codes(self) -> tuple[Codes, Codes]:
        """States as bits: after each row, ``[events]``, and before the first of each device, ``[devices]``."""
        after = np.zeros(len(self.device), dtype=np.uint8)
        before = np.zeros(len(self.first) - 1, dtype=np.uint8)
        for pair, (bit, without) in enumerate(_WITHOUT_EVENT.items()):
            of_condition = self.event // 2 == pair
            # The first word of a pair ends in "on"; a screen that is on is not idle.
            holds = self.event % 2 == (1 if bit == IDLE else 0)
            initial = np.full(len(before), without or not of_condition.any())
            owner, at = np.unique(self.device[of_condition], return_index=True)
            initial[owner] = ~holds[of_condition][at]
            last = np.maximum.accumulate(np.where(of_condition, np.arange(len(after)), -1))
            known = last >= self.first[self.device]
            after |= np.where(known, holds[last], initial[self.device]) * bit
            before |= initial * bit
        return after, before


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edges:
    """All changes of state of a recording: when, since its start, and to what; ``first`` bounds each device's.

    A device's first edge is at 0, and no edge leads to the state of the one before.
    """

    at_s: Floats
    code: Codes
    first: Int64s

    @classmethod
    def of(cls, rows: _Rows, *, start_s: Floats, period_s: Floats, always: np.uint8) -> Self:
        after, before = (codes | always for codes in rows.codes())
        device = np.concatenate([np.arange(len(before)), rows.device])
        at_s = np.concatenate([np.zeros(len(before)), rows.time_s - start_s[rows.device]])
        code = np.concatenate([before, after])
        order = np.lexsort((at_s, device))
        order = order[at_s[order] < period_s[device[order]]]
        device, at_s, code = device[order], at_s[order], code[order]
        for same in (_last_of_its_time, _changed):
            kept = same(device, at_s, code)
            device, at_s, code = device[kept], at_s[kept], code[kept]
        return cls(at_s=at_s, code=code, first=np.searchsorted(device, np.arange(len(before) + 1)).astype(np.int64))

    def find(self, recorded: Int64s, since_s: Floats) -> Int64s:
        """Each recorded device's last edge at or before ``since_s``, 0 or more: a binary search for all at once."""
        low, high = self.first[recorded], self.first[recorded + 1]
        for _ in range(int(np.diff(self.first).max()).bit_length()):
            middle = (low + high) // 2
            before = self.at_s[middle] <= since_s
            low, high = np.where(before, middle, low), np.where(before, high, middle)
        return low


def _last_of_its_time(device: Int64s, at_s: Floats, _code: Codes) -> Bools:
    last = np.ones(len(device), dtype=np.bool_)
    last[:-1] = (device[1:] != device[:-1]) | (at_s[1:] != at_s[:-1])
    return last


def _changed(device: Int64s, _at_s: Floats, code: Codes) -> Bools:
    changed = np.ones(len(device), dtype=np.bool_)
    changed[1:] = (device[1:] != device[:-1]) | (code[1:] != code[:-1])
    return changed


def _columns(devices: npt.ArrayLike, now_s: float | Floats) -> tuple[Int64s, Floats]:
    device = np.asarray(devices, dtype=np.int64)
    return device, np.broadcast_to(np.asarray(now_s, dtype=np.float64), device.shape)


def _on_grid(time_s: float | Floats) -> Floats:
    return np.asarray(np.round(np.asarray(time_s) * _TICKS_PER_S) / _TICKS_PER_S, dtype=np.float64)
