"""What devices are at one time, and every change of it over a while: the data that availabilities answer with.

Rules:

1. A change is a time at which idle, charging or Wi-Fi differs from just before; the new state holds from it on.
2. States are bits of one small number, so that a condition on all three is one mask.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

__all__ = [
    "CHARGING",
    "CONDITIONS",
    "IDLE",
    "WIFI",
    "DayChanges",
    "DayState",
    "next_change_by_changes",
    "walked_changes",
]

Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

IDLE, CHARGING, WIFI = np.uint8(1), np.uint8(2), np.uint8(4)
# As an experiment names them.
CONDITIONS = {"idle": IDLE, "charging": CHARGING, "wifi": WIFI}
# How far a search for a change goes at once at most: bounds its memory.
_LONGEST_WINDOW_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DayState:
    """What devices are at one time, ``bool [n]`` each; ``wifi`` is unmetered Wi-Fi."""

    idle: Bools
    charging: Bools
    wifi: Bools

    @property
    def code(self) -> Codes:
        """The three as bits, ``uint8 [n]``."""
        code: Codes = self.idle * IDLE + self.charging * CHARGING + self.wifi * WIFI
        return code

    def with_always(self, always: int) -> Self:
        """The same where the conditions of these bits hold whatever the day says."""
        if not always:
            return self
        idle, charging, wifi = (
            np.ones_like(column) if always & bit else column
            for column, bit in ((self.idle, IDLE), (self.charging, CHARGING), (self.wifi, WIFI))
        )
        return type(self)(idle=idle, charging=charging, wifi=wifi)


@dataclass(frozen=True, slots=True, kw_only=True)
class DayChanges:
    """States of devices from ``from_s`` to just before ``until_s``.

    Attributes:
        from_s: ``[n]``.
        until_s: ``[n]``.
        time_s: the changes after ``from_s`` and before ``until_s``, rising, infinite where a device has fewer;
            ``[n, k]``.
        code: the state at ``from_s`` and from each change on, ``[n, k + 1]``; repeated where there is no change.
    """

    from_s: Floats
    until_s: Floats
    time_s: Floats
    code: Codes

    def code_at(self, at_s: Floats) -> Codes:
        """The state of each device at a time within, ``[n]``; from ``until_s`` on that of just before it."""
        passed = (self.time_s <= at_s[:, np.newaxis]).sum(axis=1)
        code: Codes = self.code[np.arange(len(at_s)), passed]
        return code

    def pieces(self) -> tuple[Floats, Floats]:
        """Start and end of the time in each state, ``[n, k + 1]``; empty ones at the end."""
        until_s = self.until_s[:, np.newaxis]
        start_s = np.concatenate([self.from_s[:, np.newaxis], np.minimum(self.time_s, until_s)], axis=1)
        return start_s, np.concatenate([start_s[:, 1:], until_s], axis=1)

    @classmethod
    def of_events(cls, from_s: Floats, until_s: Floats, event_s: Floats, code: Codes) -> Self:
        """Keep of timed states those that are changes.

        Args:
            from_s: ``[n]``.
            until_s: ``[n]``.
            event_s: rising along the second axis, ``[n, m]``; any before ``from_s`` count as at it.
            code: the state from each event on, ``[n, m]``; the first column is at ``from_s`` at the latest. Of events
                at one time the last holds.
        """
        n, m = event_s.shape
        clipped_s = np.maximum(event_s, from_s[:, np.newaxis])
        last = np.ones((n, m), dtype=np.bool_)
        last[:, :-1] = clipped_s[:, 1:] > clipped_s[:, :-1]
        # The state that holds at from_s is that of the last event there.
        first = last.argmax(axis=1)
        settled = last & (clipped_s < until_s[:, np.newaxis])
        # Each settled event against the settled one before it: codes carried along the row.
        column = np.where(settled, np.arange(m), 0)
        column = np.maximum.accumulate(column, axis=1)
        before = np.concatenate([np.zeros((n, 1), dtype=np.int64), column[:, :-1]], axis=1)
        rows = np.arange(n)[:, np.newaxis]
        changed = settled & (np.arange(m) > first[:, np.newaxis]) & (code != code[rows, before])
        return cls._compressed(from_s, until_s, clipped_s, code, first, changed)

    @classmethod
    def _compressed(
        cls, from_s: Floats, until_s: Floats, event_s: Floats, code: Codes, first: Indices, changed: Bools
    ) -> Self:
        n = len(from_s)
        row, column = np.nonzero(changed)
        count = np.bincount(row, minlength=n)
        place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        k = int(count.max(initial=0))
        time_s = np.full((n, k), np.inf)
        time_s[row, place] = event_s[row, column]
        # Where there is no change, the state stays that of the last one.
        kept = np.repeat(first[:, np.newaxis], k + 1, axis=1)
        kept[row, place + 1] = column
        kept = np.maximum.accumulate(kept, axis=1)
        return cls(from_s=from_s, until_s=until_s, time_s=time_s, code=code[np.arange(n)[:, np.newaxis], kept])


class _Steps(Protocol):
    """The two questions that changes can be walked by."""

    def state(self, devices: npt.ArrayLike, now_s: float | Floats) -> DayState: ...

    def next_change_s(self, devices: npt.ArrayLike, now_s: float | Floats) -> Floats: ...


def walked_changes(day: _Steps, devices: Indices, from_s: Floats, until_s: Floats) -> DayChanges:
    """All changes of devices, found one after another: for a day that has no faster way.

    Args:
        day: an availability's ``state`` and ``next_change_s``.
        devices: ``[n]``.
        from_s: ``[n]``.
        until_s: ``[n]``, not before ``from_s``.
    """
    times, codes = [from_s], [day.state(devices, from_s).code]
    left = np.arange(len(devices))
    while len(left):
        at_s = day.next_change_s(devices[left], times[-1][left])
        left, at_s = left[at_s < until_s[left]], at_s[at_s < until_s[left]]
        if len(left) == 0:
            break
        time_s, code = np.full(len(devices), np.inf), codes[-1].copy()
        time_s[left], code[left] = at_s, day.state(devices[left], at_s).code
        times.append(time_s)
        codes.append(code)
    return DayChanges(
        from_s=from_s,
        until_s=until_s,
        time_s=np.stack([*times[1:]], axis=1) if len(times) > 1 else np.empty((len(devices), 0)),
        code=np.stack(codes, axis=1),
    )


def next_change_by_changes(
    changes: Callable[[Indices, Floats, Floats], DayChanges], devices: Indices, now_s: Floats, *, window_s: float
) -> Floats:
    """When the state of each device next differs from that at ``now_s``, ``[n]``: windows are searched in turn.

    Args:
        changes: an availability's.
        devices: ``[n]``; each must change some day.
        now_s: ``[n]``.
        window_s: how far to look at once at first; twice as far each time after, up to a day.
    """
    found_s = np.full(len(devices), np.inf)
    left, from_s = np.arange(len(devices)), now_s.astype(np.float64)
    before: Codes | None = None
    while len(left):
        seen = changes(devices[left], from_s, from_s + window_s)
        # A change at the very end of the last window is in none: it shows as another state at the start of this one.
        at_edge = np.zeros(len(left), dtype=np.bool_) if before is None else seen.code[:, 0] != before
        first_s = seen.time_s[:, 0] if seen.time_s.shape[1] else np.full(len(left), np.inf)
        found_s[left] = np.where(at_edge, from_s, first_s)
        open_rows = ~np.isfinite(found_s[left])
        left, from_s, before = left[open_rows], from_s[open_rows] + window_s, seen.code[open_rows, 0]
        window_s = min(2.0 * window_s, _LONGEST_WINDOW_S)
    return found_s
