"""Time zones: a day that devices live by the clocks of their own zones.

Rules:

1. Virtual time is UTC. A device's zone is so many hours ahead of it; it lives its day by that clock: it is at
   virtual time ``t`` what the day underneath says of ``t`` plus its offset. So a day that begins on a Monday at 0 does
   so at another moment in each zone, and before a device's first midnight is its Sunday evening.
2. A device draws its zone once, by (seed, device): adding a device changes no other's.
3. There is no daylight saving time.
4. Offsets are whole quarters of an hour, and the changes of the days underneath multiples of 1/1024 s: sums of them are
   exact, so ``state`` at ``next_change_s`` is the changed one.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.day_changes import DayChanges, DayState
from pocketfleet.errors import InputError
from pocketfleet.training.draws import draw_key, uniform

if TYPE_CHECKING:
    from pocketfleet.device_sim.availability import Availability

__all__ = ["ZonedDay", "zone_weights"]

Floats = npt.NDArray[np.float64]

_S_PER_HOUR = 3600.0
# From Baker Island to Kiribati, in quarters of an hour: the IANA time zone database has no others.
_LEAST_HOURS, _MOST_HOURS, _STEPS_PER_HOUR = -12.0, 14.0, 4


def zone_weights(zones: Mapping[str, float]) -> dict[float, float]:
    """Offsets from UTC in hours, rising, and the share of devices that live there; shares sum to 1.

    Args:
        zones: weights by offset, such as ``{"-5": 1.0, "5.5": 3.0}``.

    Raises:
        InputError: an offset or a weight is not allowed, or one offset is given twice.
    """
    weights: dict[float, float] = {}
    for text, weight in zones.items():
        hours = _hours(text)
        if hours in weights:
            raise InputError(f"fleet.time_zones must name each offset once, got {text!r} again: add its weights up")
        if not (np.isfinite(weight) and weight > 0.0):
            raise InputError(f"fleet.time_zones must give each offset a weight above 0, got {weight:g} at {text!r}")
        weights[hours] = weight
    total = sum(weights.values())
    return {hours: weights[hours] / total for hours in sorted(weights)}


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = np.nan
    if not (_LEAST_HOURS <= hours <= _MOST_HOURS and (hours * _STEPS_PER_HOUR).is_integer()):
        raise InputError(
            f"fleet.time_zones must name hours ahead of UTC from {_LEAST_HOURS:g} to {_MOST_HOURS:g} in quarters, such "
            f'as "-5" or "5.5", got {text!r}'
        )
    return hours


class ZonedDay:
    """Any day, lived by local clocks.

    Args:
        day: by one clock.
        zones: weights by offset, see ``zone_weights``; one at least.
        seed: the experiment's.
    """

    def __init__(self, day: "Availability", zones: Mapping[str, float], *, seed: int) -> None:
        weights = zone_weights(zones)
        self._day = day
        self._seed = seed
        self._offset_s = np.array(list(weights)) * _S_PER_HOUR
        # The last zone takes what rounding leaves of the sum.
        self._below = np.cumsum(list(weights.values()))[:-1]

    def offset_s(self, devices: npt.ArrayLike) -> Floats:
        """How far each device's clock is ahead of virtual time, ``[n]``."""
        chance = uniform(draw_key(self._seed, "fleet.time_zone", np.atleast_1d(devices)), 1)[:, 0]
        return self._offset_s[np.searchsorted(self._below, chance, side="right")]

    def state(self, devices: npt.ArrayLike, now_s: float | Floats) -> DayState:
        """What each device is at ``now_s``: three ``bool [n]``."""
        return self._day.state(devices, self.offset_s(devices) + now_s)

    def next_change_s(self, devices: npt.ArrayLike, now_s: float | Floats) -> Floats:
        """When the state of each device next differs, later than ``now_s``; infinite if never; ``float64 [n]``."""
        offset_s = self.offset_s(devices)
        return self._day.next_change_s(devices, offset_s + now_s) - offset_s

    def changes(self, devices: npt.ArrayLike, from_s: float | Floats, until_s: float | Floats) -> DayChanges:
        """Every change of devices after ``from_s`` and before ``until_s``; each one for all or ``[n]``."""
        offset_s = self.offset_s(devices)
        local = self._day.changes(devices, offset_s + from_s, offset_s + until_s)
        return replace(
            local,
            from_s=np.broadcast_to(np.asarray(from_s, dtype=np.float64), offset_s.shape),
            until_s=np.broadcast_to(np.asarray(until_s, dtype=np.float64), offset_s.shape),
            time_s=local.time_s - offset_s[:, np.newaxis],
        )

    def place(self, devices: npt.ArrayLike, now_s: float | Floats) -> npt.NDArray[np.int8]:
        """Where each device is, a ``Place``; ``int8 [n]``."""
        return self._day.place(devices, self.offset_s(devices) + now_s)

    def local_s(self, devices: npt.ArrayLike, now_s: float | Floats) -> Floats:
        """The time on each device's own clock: seconds since a midnight of its zone; ``float64 [n]``."""
        return self._day.local_s(devices, self.offset_s(devices) + now_s)
