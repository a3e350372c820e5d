"""Availabilities: who says when a device is idle, charging and on unmetered Wi-Fi.

An availability answers two questions about any devices at any time, without a stored history: what is the state now,
and when does it next change. ``flash_day.py`` is the one with a day; here are the seam, the trivial one and the names.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.flash_day import DayState, FlashDay
from pocketfleet.errors import InputError

__all__ = ["AlwaysAvailable", "Availability", "DayState", "FlashDay", "make_availability"]

Floats = npt.NDArray[np.float64]


class Availability(Protocol):
    """What a simulator asks of a day. Devices are indices ``[n]``; a time is one for all or ``[n]``."""

    def state(self, devices: npt.ArrayLike, now_s: float | Floats) -> DayState:
        """What each device is at ``now_s``: three ``bool [n]``."""
        ...

    def next_change_s(self, devices: npt.ArrayLike, now_s: float | Floats) -> Floats:
        """When any of the three next changes, strictly later than ``now_s``; infinite if never; ``float64 [n]``."""
        ...


class AlwaysAvailable:
    """Every device is idle, charging and on Wi-Fi at all times."""

    def state(self, devices: npt.ArrayLike, now_s: float | Floats) -> DayState:
        """All true, whatever ``now_s``."""
        del now_s
        always = np.ones(len(np.atleast_1d(devices)), dtype=np.bool_)
        return DayState(idle=always, charging=always.copy(), wifi=always.copy())

    def next_change_s(self, devices: npt.ArrayLike, now_s: float | Floats) -> Floats:
        """Infinite: nothing ever changes."""
        del now_s
        return np.full(len(np.atleast_1d(devices)), np.inf)


def _always(seed: int) -> Availability:
    del seed
    return AlwaysAvailable()


def _flash(seed: int) -> Availability:
    return FlashDay(seed=seed)


_BY_NAME: dict[str, Callable[[int], Availability]] = {"flash-2020": _flash, "always": _always}


def make_availability(name: str, *, seed: int) -> Availability:
    """The availability of that name, its days drawn from ``seed``.

    Raises:
        InputError: there is none; the message lists the names.
    """
    if name not in _BY_NAME:
        raise InputError(f"fleet.availability must be one of {', '.join(_BY_NAME)}, got {name!r}")
    return _BY_NAME[name](seed)
