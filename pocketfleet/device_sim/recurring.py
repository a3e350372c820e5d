"""Intervals that recur in a device's life, drawn when they are looked at and never stored.

Rules:

1. Time is cut into slots of equal length. A slot holds at most one interval, which starts within it.
2. An interval is a function of (seed, purpose, device, slot) alone. It may last into later slots, ``slots_back`` of
   them at most, so the state at a time is found by looking at the current slot and that many before it.
3. An interval holds its start and not its end. Intervals of neighbouring slots may overlap.
4. Starts and ends are multiples of 1/1024 s, so that sums of them with whole seconds, such as a time zone's, are exact.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketfleet.training.draws import draw_key, uniform

__all__ = ["SLOTS_BEFORE_ZERO", "Drawn", "Recurring", "Spans", "on_grid"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# Slots before time 0 are looked at too, by 12 hours of a time zone and more; their numbers are shifted by this to be
# keys, which are not negative.
SLOTS_BEFORE_ZERO = 64
# A power of two: multiples of its inverse are exact float64 numbers up to 2**43 s.
_TICKS_PER_S = 1024.0


def on_grid(time_s: Floats) -> Floats:
    """Times rounded down to the grid of rule 4, any shape; infinite ones stay so."""
    return np.asarray(np.floor(time_s * _TICKS_PER_S) / _TICKS_PER_S, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The intervals of slots, ``[n, slots]``: whether they happen, how long after the slot's start, how long."""

    happens: Bools
    after_s: Floats
    length_s: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """The intervals of ``n`` devices that may hold any time of a while.

    Attributes:
        start_s: ``[n, slots]``; infinitely early, like the end, where a slot holds none.
        end_s: ``[n, slots]``.
    """

    start_s: Floats
    end_s: Floats

    def hold(self, now_s: Floats) -> Bools:
        """Whether an interval of each device holds ``now_s``; both ``[n]``."""
        now_s = now_s[:, np.newaxis]
        return np.asarray(((self.start_s <= now_s) & (now_s < self.end_s)).any(axis=1), dtype=np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurring:
    """One kind of recurring interval.

    Attributes:
        purpose: keys the draws.
        slot_s: a slot's length in seconds.
        offset_s: when slot 0 starts, at most 0.
        slots_back: how many slots an interval may reach beyond its own.
        draw: ``(traits [n, traits], slot_start_s [n, slots], chance [n, slots, chances]) -> Drawn``, where traits are
            what stays with a device and ``chance`` is uniform in [0, 1).
        chances: how many numbers ``draw`` takes a slot.
    """

    purpose: str
    slot_s: float
    offset_s: float
    slots_back: int
    draw: Callable[[Floats, Floats, Floats], Drawn]
    chances: int

    def spans(self, seed: int, devices: Indices, traits: Floats, now_s: Floats, *, slots_ahead: int) -> Spans:
        """The intervals around ``now_s`` and over ``slots_ahead`` further slots.

        Args:
            seed: the experiment's seed.
            devices: ``[n]``.
            traits: ``[n, traits]``.
            now_s: ``[n]``, at most a day before 0.
            slots_ahead: 0 or more.
        """
        current = np.floor((now_s - self.offset_s) / self.slot_s)
        slot = current[:, np.newaxis] + np.arange(-self.slots_back, slots_ahead + 1, dtype=np.float64)
        slot_start_s: Floats = slot * self.slot_s + self.offset_s
        key = draw_key(seed, self.purpose, devices[:, np.newaxis], slot.astype(np.int64) + SLOTS_BEFORE_ZERO)
        drawn = self.draw(traits, slot_start_s, uniform(key, self.chances))
        start_s = np.where(drawn.happens, on_grid(slot_start_s + drawn.after_s), -np.inf)
        return Spans(start_s=start_s, end_s=on_grid(start_s + np.where(drawn.happens, drawn.length_s, 0.0)))

    def slots_ahead(self, from_s: Floats, until_s: Floats) -> int:
        """How many slots after that of ``from_s`` begin before or at ``until_s``, at most; both ``[n]``."""
        first, last = (np.floor((at_s - self.offset_s) / self.slot_s) for at_s in (from_s, until_s))
        return int((last - first).max(initial=0.0))
