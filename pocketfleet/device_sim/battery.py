"""The energy in each device's battery and the heat of its skin, as columns that are advanced lazily, together.

Rules:

1. Between two changes of its day a device's level and its skin are closed forms of time (``lived_pieces.py``): time
   costs nothing until a device is looked at. A level stays between 0 and the capacity.
2. A charging phone is fed by its charger, idle and screen first. Outside training the charger gives from the start what
   the case can shed for good (``Cases.held_charge_watts``); a real one gives more while the case is still cool.
3. Without cases nothing warms, and nothing is held back.
4. Ageing, and what temperature does to a cell, are not modelled.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.charging import CHARGING_EFFICIENCY_RATIO, FULL_POWER_RATIO
from pocketfleet.device_sim.day_changes import DayChanges
from pocketfleet.device_sim.lived_pieces import Supply, lived_through
from pocketfleet.device_sim.thermal import Cases

if TYPE_CHECKING:
    from pocketfleet.device_sim.availability import Availability
    from pocketfleet.device_sim.fleet import Fleet

__all__ = ["CHARGING_EFFICIENCY_RATIO", "Battery"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# How much of a day is looked at at once: bounds the memory of devices that were not looked at for long.
_STRETCH_S = 86_400.0


class Battery:
    """Levels and skins of all devices, each with its own timestamp; columns are ``float64 [devices]``."""

    def __init__(
        self,
        *,
        capacity_joules: Floats,
        level_joules: Floats,
        charger_watts: Floats,
        idle_watts: Floats,
        screen_watts: Floats,
        cases: Cases | None = None,
    ) -> None:
        self.capacity_joules = capacity_joules
        self.level_joules = np.clip(level_joules, 0.0, capacity_joules)
        self.at_s = np.zeros_like(capacity_joules)
        self.cases = cases
        settled = np.full_like(capacity_joules, np.nan) if cases is None else cases.settles_at_celsius(idle_watts)
        self.skin_celsius = settled
        self._charger_watts = charger_watts
        self._idle_watts = idle_watts
        self._screen_watts = screen_watts

    @classmethod
    def of_fleet(cls, fleet: "Fleet", *, room_celsius: float | None = None) -> Self:
        """The batteries of a fleet at time 0; a device without a charger gains nothing when charging.

        Args:
            fleet: whose.
            room_celsius: the air around the phones, which lay idle in it; ``None``: nothing warms.
        """
        cases = None
        if room_celsius is not None:
            cases = Cases.of_devices(fleet, np.arange(len(fleet)), room_celsius=room_celsius)
        return cls(
            capacity_joules=fleet.battery_capacity_joules,
            level_joules=fleet.battery_capacity_joules * fleet.initial_battery_ratio,
            charger_watts=np.where(fleet.has_charger, fleet.charger_watts, 0.0),
            idle_watts=fleet.idle_watts,
            screen_watts=fleet.screen_watts,
            cases=cases,
        )

    def charge_watts(self, devices: Indices) -> Floats:
        """What the chargers of idle devices give at most while these are cool, ``[n]``."""
        return self._given_watts(devices, self._idle_watts[devices])

    def full_watts(self, devices: Indices) -> Floats:
        """What arrives of devices' chargers at full power, whatever the heat, ``[n]``."""
        full: Floats = self._charger_watts[devices] * (FULL_POWER_RATIO * CHARGING_EFFICIENCY_RATIO)
        return full

    def _given_watts(self, devices: Indices, draw_watts: Floats) -> Floats:
        full: Floats = self._charger_watts[devices] * FULL_POWER_RATIO
        return full if self.cases is None else np.minimum(full, self.cases.rows(devices).held_charge_watts(draw_watts))

    def level_joules_at(self, devices: Indices, at_s: float | Floats, *, day: "Availability") -> Floats:
        """What is in devices' batteries at ``at_s``, see ``advanced``."""
        return self.advanced(devices, at_s, day=day)[0]

    def advanced(self, devices: Indices, at_s: float | Floats, *, day: "Availability") -> tuple[Floats, Floats]:
        """Devices' batteries and skins after living their days up to ``at_s``; nothing is written down.

        Args:
            devices: ``[n]``.
            at_s: virtual time, one for all or ``[n]``.
            day: says when each charges and is in use.

        Returns:
            Joules and degrees, ``[n]`` each; degrees are NaN without cases.

        Raises:
            ValueError: a device is known at a later time than ``at_s``.
        """
        until_s = np.broadcast_to(np.asarray(at_s, dtype=np.float64), devices.shape)
        level, celsius, reached_s = self.level_joules[devices], self.skin_celsius[devices], self.at_s[devices]
        if np.any(until_s < reached_s):
            raise ValueError(f"a battery cannot go back in time: {float((until_s - reached_s).min())} s")
        left = np.flatnonzero(reached_s < until_s)
        while len(left):
            stop_s = np.minimum(reached_s[left] + _STRETCH_S, until_s[left])
            changes = day.changes(devices[left], reached_s[left], stop_s)
            level[left], celsius[left] = lived_through(self._supply(devices[left]), changes, level[left], celsius[left])
            reached_s[left] = stop_s
            left = left[stop_s < until_s[left]]
        return level, celsius

    def after_work(
        self, devices: Indices, level_joules: Floats, changes: DayChanges, *, work_watts: Floats, most_watts: Floats
    ) -> Floats:
        """What is left in batteries after a while of work on top of their days, ``[n]``.

        Args:
            devices: ``[n]``.
            level_joules: at the start, ``[n]``.
            changes: of their days over the while.
            work_watts: drawn for the work in the mean, ``[n]``.
            most_watts: what the charger gives at most in the mean, ``[n]``.
        """
        # What the work warms is told by ``training_heat``.
        supply = replace(self._supply(devices, work_watts=work_watts, most_watts=most_watts), cases=None)
        return lived_through(supply, changes, level_joules, np.full_like(level_joules, np.nan))[0]

    def _supply(
        self, devices: Indices, *, work_watts: float | Floats = 0.0, most_watts: float | Floats = np.inf
    ) -> Supply:
        idle = self._idle_watts[devices]
        in_use = idle + self._screen_watts[devices]
        idle_fed, in_use_fed = (np.minimum(self._given_watts(devices, draw), most_watts) for draw in (idle, in_use))
        return Supply(
            capacity_joules=self.capacity_joules[devices],
            full_watts=self.full_watts(devices),
            idle_watts=idle + work_watts,
            in_use_watts=in_use + work_watts,
            idle_fed_watts=idle_fed * CHARGING_EFFICIENCY_RATIO,
            in_use_fed_watts=in_use_fed * CHARGING_EFFICIENCY_RATIO,
            cases=None if self.cases is None else self.cases.rows(devices),
        )

    def set(
        self, devices: Indices, level_joules: Floats, at_s: float | Floats, *, skin_celsius: Floats | None = None
    ) -> None:
        """Write down what is in devices' batteries at a time, between 0 and full; ``[n]``, the last counts."""
        self.level_joules[devices] = np.clip(level_joules, 0.0, self.capacity_joules[devices])
        self.at_s[devices] = at_s
        if skin_celsius is not None:
            self.skin_celsius[devices] = skin_celsius

    def state(self) -> dict[str, Floats]:
        """A copy of what changes, for a checkpoint: ``level_joules``, ``skin_celsius`` and ``at_s``."""
        return {name: getattr(self, name).copy() for name in _STATE}

    def restore(self, state: Mapping[str, Floats]) -> None:
        """Continue from what ``state`` returned.

        Raises:
            ValueError: the columns are of another number of devices.
        """
        if any(state[name].shape != self.at_s.shape for name in _STATE):
            raise ValueError(f"the state is not of {len(self.at_s)} devices")
        for name in _STATE:
            setattr(self, name, state[name].copy())


_STATE = ("level_joules", "skin_celsius", "at_s")
