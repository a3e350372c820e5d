"""Pressures on a phone's memory by what runs behind the screen: updates, synchronisation, cached apps that wake up.

Rules:

1. Each hour holds at most one pressure, which starts within it. It is a function of (seed, device, hour) alone.
2. A pressure takes a share of the memory that is typically free: mostly little, sometimes nearly all. Where two
   overlap, the larger counts.
3. How often, how long and how large is assumed. That most phones meet low memory in everyday use is published (Waheed,
   Akhtar, Qazi and Qazi 2022, "Coal not diamonds", ACM CoNEXT), a distribution that could be drawn from is not.
"""

import numpy as np
import numpy.typing as npt

from pocketfleet.training.draws import draw_key, uniform

__all__ = ["MOST_RATIO", "pressure_ratio", "pressures"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_SLOT_S = 3600.0
# Assumed, all four: the chance of an hour that it holds a pressure; its length, exponential and cut; its share of the
# free memory, MOST * u ** POWER: at a power of 4 half take less than a sixteenth of MOST, one in ten
# two thirds or more.
_CHANCE = 0.15
_MEAN_S, _MOST_S = 300.0, 3600.0
MOST_RATIO, _POWER = 0.95, 4.0


def pressures(seed: int, devices: Indices, from_s: Floats, until_s: Floats) -> tuple[Floats, Floats, Floats]:
    """All pressures that hold any time from ``from_s`` to ``until_s``: start, end, ratio; ``[n, slots]`` each.

    Where an hour holds none, start and end are infinitely early.

    Args:
        seed: the experiment's.
        devices: ``[n]``.
        from_s: ``[n]``, 0 or more.
        until_s: ``[n]``, not before ``from_s``.
    """
    first = np.floor(from_s / _SLOT_S).astype(np.int64)
    ahead = int((np.floor(until_s / _SLOT_S) - first).max(initial=0.0))
    # The longest lasts into the next hour.
    slot = first[:, np.newaxis] + np.arange(-1, ahead + 1)
    key = draw_key(seed, "memory.pressure", devices[:, np.newaxis], slot + 1)
    happens, after, length, size = np.moveaxis(uniform(key, 4), -1, 0)
    start_s = np.where(happens < _CHANCE, (slot + after) * _SLOT_S, -np.inf)
    end_s = start_s + np.minimum(-_MEAN_S * np.log1p(-length), _MOST_S)
    return start_s, end_s, MOST_RATIO * size**_POWER


def pressure_ratio(seed: int, devices: Indices, at_s: Floats) -> Floats:
    """The share of the typically free memory that is taken at ``at_s``; all ``[n]``."""
    start_s, end_s, ratio = pressures(seed, devices, at_s, at_s)
    holds = (start_s <= at_s[:, np.newaxis]) & (at_s[:, np.newaxis] < end_s)
    most: Floats = np.where(holds, ratio, 0.0).max(axis=1, initial=0.0)
    return most
