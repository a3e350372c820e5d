"""The energy in each device's battery, as columns that are advanced lazily.

Rules:

1. Between two changes of its day a device's level is a straight line in time: ``level + watts * seconds``, clipped to
   0 and the capacity. Time costs nothing until a device is looked at.
2. A charging phone gains ``charger_watts * CHARGING_EFFICIENCY_RATIO``; idle and screen are drawn either way.
3. The taper of the charging current near full, ageing and temperature are not modelled.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.day_changes import CHARGING, IDLE, DayChanges

if TYPE_CHECKING:
    from pocketfleet.device_sim.availability import Availability
    from pocketfleet.device_sim.fleet import Fleet

__all__ = ["CHARGING_EFFICIENCY_RATIO", "Battery"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# Assumed: the share of the charger's power that ends in a lithium cell, after conversion and heat.
CHARGING_EFFICIENCY_RATIO = 0.85
# How much of a day is looked at at once: bounds the memory of devices that were not looked at for long.
_STRETCH_S = 86_400.0


class Battery:
    """Levels of all devices, each with its own timestamp; columns are ``float64 [devices]``."""

    def __init__(
        self,
        *,
        capacity_joules: Floats,
        level_joules: Floats,
        charger_watts: Floats,
        idle_watts: Floats,
        screen_watts: Floats,
    ) -> None:
        self.capacity_joules = capacity_joules
        self.level_joules = np.clip(level_joules, 0.0, capacity_joules)
        self.at_s = np.zeros_like(capacity_joules)
        self._charger_watts = charger_watts
        self._idle_watts = idle_watts
        self._screen_watts = screen_watts

    @classmethod
    def of_fleet(cls, fleet: "Fleet") -> Self:
        """The batteries of a fleet at time 0; a device without a charger gains nothing when charging."""
        return cls(
            capacity_joules=fleet.battery_capacity_joules,
            level_joules=fleet.battery_capacity_joules * fleet.initial_battery_ratio,
            charger_watts=np.where(fleet.has_charger, fleet.charger_watts, 0.0),
            idle_watts=fleet.idle_watts,
            screen_watts=fleet.screen_watts,
        )

    def level_joules_at(self, devices: Indices, at_s: float | Floats, *, day: "Availability") -> Floats:
        """What is in devices' batteries after living their days up to ``at_s``; nothing is written down.

        Args:
            devices: ``[n]``.
            at_s: virtual time, one for all or ``[n]``.
            day: says when each charges and is in use.

        Raises:
            ValueError: a device's level is known at a later time than ``at_s``.
        """
        until_s = np.broadcast_to(np.asarray(at_s, dtype=np.float64), devices.shape)
        level, reached_s = self.level_joules[devices], self.at_s[devices]
        if np.any(until_s < reached_s):
            raise ValueError(f"a battery cannot go back in time: {float((until_s - reached_s).min())} s")
        left = np.flatnonzero(reached_s < until_s)
        while len(left):
            stop_s = np.minimum(reached_s[left] + _STRETCH_S, until_s[left])
            changes = day.changes(devices[left], reached_s[left], stop_s)
            level[left] = self._through(devices[left], level[left], changes)
            reached_s[left] = stop_s
            left = left[stop_s < until_s[left]]
        return level

    def _through(self, devices: Indices, level: Floats, changes: DayChanges) -> Floats:
        """The levels after ``changes``, piece by piece of constant conditions; ``[n]``."""
        gain_watts = self._charger_watts[devices] * CHARGING_EFFICIENCY_RATIO
        idle_watts, screen_watts = self._idle_watts[devices], self._screen_watts[devices]
        capacity = self.capacity_joules[devices]
        start_s, end_s = changes.pieces()
        for column, code in enumerate(changes.code.T):
            watts = np.where(code & CHARGING, gain_watts, 0.0) - idle_watts - np.where(code & IDLE, 0.0, screen_watts)
            level = np.clip(level + watts * (end_s - start_s)[:, column], 0.0, capacity)
        return level

    def set(self, devices: Indices, level_joules: Floats, at_s: float | Floats) -> None:
        """Write down what is in devices' batteries at a time, between 0 and full; ``[n]``, the last counts."""
        self.level_joules[devices] = np.clip(level_joules, 0.0, self.capacity_joules[devices])
        self.at_s[devices] = at_s

    def state(self) -> dict[str, Floats]:
        """A copy of what changes, for a checkpoint: ``level_joules`` and ``at_s``."""
        return {"level_joules": self.level_joules.copy(), "at_s": self.at_s.copy()}

    def restore(self, state: Mapping[str, Floats]) -> None:
        """Continue from what ``state`` returned.

        Raises:
            ValueError: the columns are of another number of devices.
        """
        if any(state[name].shape != self.at_s.shape for name in ("level_joules", "at_s")):
            raise ValueError(f"the state is not of {len(self.at_s)} devices")
        self.level_joules = state["level_joules"].copy()
        self.at_s = state["at_s"].copy()
