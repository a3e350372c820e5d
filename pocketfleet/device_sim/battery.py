"""The energy in each device's battery, as columns that are advanced lazily.

Rules:

1. Between two calls a device's conditions are constant, so its level is a straight line in time:
   ``level + watts * seconds``, clipped to 0 and the capacity. Time costs nothing until a device is looked at.
2. A charging phone gains ``charger_watts * CHARGING_EFFICIENCY_RATIO``; idle and screen are drawn either way.
3. The taper of the charging current near full, ageing and temperature are not modelled.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pocketfleet.device_sim.fleet import Fleet

__all__ = ["CHARGING_EFFICIENCY_RATIO", "Battery"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# Assumed: the share of the charger's power that ends in a lithium cell, after conversion and heat.
CHARGING_EFFICIENCY_RATIO = 0.85


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

    def advance(self, devices: Indices, to_s: float | Floats, *, charging: Bools, in_use: Bools) -> None:
        """Bring devices to a later time under constant conditions.

        Args:
            devices: ``[n]``, each at most once.
            to_s: virtual time, one for all or ``[n]``.
            charging: ``[n]``, since each device's timestamp.
            in_use: ``[n]``, likewise: the screen is on.

        Raises:
            ValueError: a device is already later than ``to_s``.
        """
        elapsed_s = to_s - self.at_s[devices]
        if np.any(elapsed_s < 0.0):
            raise ValueError(f"a battery cannot go back in time: {float(np.min(elapsed_s))} s")
        gained_watts = np.where(charging, self._charger_watts[devices] * CHARGING_EFFICIENCY_RATIO, 0.0)
        drawn_watts = self._idle_watts[devices] + np.where(in_use, self._screen_watts[devices], 0.0)
        level_joules = self.level_joules[devices] + (gained_watts - drawn_watts) * elapsed_s
        self.level_joules[devices] = np.clip(level_joules, 0.0, self.capacity_joules[devices])
        self.at_s[devices] = to_s

    def spend(self, devices: Indices, joules: float | Floats) -> None:
        """Take energy out at the devices' timestamps, down to 0 at most.

        Args:
            devices: ``[n]``, each at most once.
            joules: one for all or ``[n]``; 0 or more.

        Raises:
            ValueError: an amount is negative.
        """
        if np.any(np.asarray(joules) < 0.0):
            raise ValueError("a battery spends 0 joules or more; charging is a matter of advance")
        self.level_joules[devices] = np.maximum(self.level_joules[devices] - joules, 0.0)

    def ratio(self, devices: Indices) -> Floats:
        """Level over capacity at each device's timestamp, ``float64 [n]``."""
        ratio: Floats = self.level_joules[devices] / self.capacity_joules[devices]
        return ratio

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
