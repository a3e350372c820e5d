"""A recorded trace replayed the slow way: one device, one time, one event after another; the oracle of the fast one."""

import math
from collections.abc import Sequence
from fractions import Fraction

__all__ = ["SlowDevice"]

DAY_S = 86400
ON_WORDS = {"idle": "screen_off", "charging": "charge_on", "wifi": "wifi_on"}
OFF_WORDS = {"idle": "screen_on", "charging": "charge_off", "wifi": "wifi_off"}
WITHOUT_EVENT = {"idle": True, "charging": False, "wifi": False}

Event = tuple[float, str]


def tick(time_s: float) -> Fraction:
    return Fraction(round(time_s * 1024), 1024)


class SlowDevice:
    """One recorded device.

    Args:
        events: ``(time_s, word)`` in the order of the file.
        recorded: the conditions of which any device of the file has an event.
        repeat: as in ``availability_trace``.
        shift_s: likewise.
    """

    def __init__(self, events: Sequence[Event], *, recorded: set[str], repeat: str, shift_s: float) -> None:
        timed = [(tick(time_s), word) for time_s, word in events]
        self.events = sorted((pair for pair in timed if pair[1] != "end"), key=lambda pair: pair[0])
        self.recorded, self.shift_s = recorded, tick(shift_s)
        first_s, last_s = self.events[0][0], self.events[-1][0]
        end_s = max((time_s for time_s, word in timed if word == "end"), default=None)
        self.start_s, self.period_s = Fraction(0), None
        if repeat == "recording":
            self.start_s, self.period_s = first_s, (last_s if end_s is None else end_s) - first_s
        elif repeat == "days":
            self.start_s = Fraction(math.floor(first_s / DAY_S) * DAY_S)
            stop_s = math.floor(last_s / DAY_S) * DAY_S + DAY_S if end_s is None else math.ceil(end_s / DAY_S) * DAY_S
            self.period_s = stop_s - self.start_s
        if self.period_s == 0:
            # No length: the one state for ever.
            self.period_s = Fraction(DAY_S)

    def state(self, now_s: float | Fraction) -> dict[str, bool]:
        at_s = Fraction(now_s) - self.shift_s
        if self.period_s is not None:
            at_s = self.start_s + (at_s - self.start_s) % self.period_s
        return {condition: self._holds(condition, at_s) for condition in ON_WORDS}

    def next_change_s(self, now_s: float) -> float:
        edges = {time_s for time_s, _ in self.events} | {self.start_s}
        if self.period_s is not None:
            turn = (Fraction(now_s) - self.shift_s - self.start_s) // self.period_s
            edges = {edge_s for edge_s in edges if edge_s < self.start_s + self.period_s}
            edges = {edge_s + ahead * self.period_s for edge_s in edges for ahead in (turn, turn + 1, turn + 2)}
        before = self.state(now_s)
        for edge_s in sorted(edge_s + self.shift_s for edge_s in edges):
            if edge_s > now_s and self.state(edge_s) != before:
                return float(edge_s)
        return math.inf

    def _holds(self, condition: str, at_s: Fraction) -> bool:
        if condition not in self.recorded:
            return True
        known = [pair for pair in self.events if pair[1] in (ON_WORDS[condition], OFF_WORDS[condition])]
        if not known:
            return WITHOUT_EVENT[condition]
        holds = known[0][1] != ON_WORDS[condition]
        for time_s, word in known:
            if time_s <= at_s:
                holds = word == ON_WORDS[condition]
        return holds
