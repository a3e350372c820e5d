"""The energy in each device's battery and the heat of its skin, as columns that are advanced lazily, together.

Rules:

1. Between two changes of its day a device's level is a straight line in time, ``level + watts * seconds``, clipped to
   0 and the capacity; above the charger's knee it is an exponential (``charging.py``). The skin nears where it would
   settle (``thermal.py``). Both are closed forms: time costs nothing until a device is looked at.
2. A charging phone is fed by its charger, idle and screen first. Outside training the charger gives from the start what
   the case can shed for good (``Cases.held_charge_watts``); a real one gives more while the case is still cool.
3. Without cases nothing warms, and nothing is held back.
4. Ageing, and what temperature does to a cell, are not modelled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.charging import CHARGING_EFFICIENCY_RATIO, FULL_POWER_RATIO, KNEE_RATIO, Taper
from pocketfleet.device_sim.day_changes import CHARGING, IDLE, DayChanges
from pocketfleet.device_sim.thermal import Cases, relaxed, warmed_by_decay

if TYPE_CHECKING:
    from pocketfleet.device_sim.availability import Availability
    from pocketfleet.device_sim.fleet import Fleet

__all__ = ["CHARGING_EFFICIENCY_RATIO", "Battery"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# How much of a day is looked at at once: bounds the memory of devices that were not looked at for long.
_STRETCH_S = 86_400.0
# What a charger loses in the phone for each watt that arrives.
_LOST_PER_ARRIVED = (1.0 - CHARGING_EFFICIENCY_RATIO) / CHARGING_EFFICIENCY_RATIO


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
            level[left], celsius[left] = self._through(self._rows(devices[left]), level[left], celsius[left], changes)
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
        rows = replace(self._rows(devices, work_watts=work_watts, most_watts=most_watts), cases=None)
        return self._through(rows, level_joules, np.full_like(level_joules, np.nan), changes)[0]

    def _rows(
        self, devices: Indices, *, work_watts: float | Floats = 0.0, most_watts: float | Floats = np.inf
    ) -> "_Rows":
        idle = self._idle_watts[devices]
        in_use = idle + self._screen_watts[devices]
        idle_fed, in_use_fed = (np.minimum(self._given_watts(devices, draw), most_watts) for draw in (idle, in_use))
        return _Rows(
            capacity_joules=self.capacity_joules[devices],
            full_watts=self.full_watts(devices),
            idle_watts=idle + work_watts,
            in_use_watts=in_use + work_watts,
            idle_fed_watts=idle_fed * CHARGING_EFFICIENCY_RATIO,
            in_use_fed_watts=in_use_fed * CHARGING_EFFICIENCY_RATIO,
            cases=None if self.cases is None else self.cases.rows(devices),
        )

    @staticmethod
    def _through(rows: "_Rows", level: Floats, celsius: Floats, changes: DayChanges) -> tuple[Floats, Floats]:
        """Levels and skins after ``changes``, piece by piece of constant conditions; ``[n]``."""
        start_s, end_s = changes.pieces()
        knee = KNEE_RATIO * rows.capacity_joules
        for code, seconds in zip(changes.code.T, (end_s - start_s).T, strict=True):
            idle = (code & IDLE) > 0
            draw = np.where(idle, rows.idle_watts, rows.in_use_watts)
            fed = np.where(code & CHARGING, np.where(idle, rows.idle_fed_watts, rows.in_use_fed_watts), 0.0)
            net = fed - draw
            after = np.clip(level + net * seconds, 0.0, rows.capacity_joules)
            warmed = celsius if rows.cases is None else _warmed(rows.cases, celsius, draw, fed, seconds)
            high = np.flatnonzero((after > knee) & (net > 0.0) & (seconds > 0.0))
            if len(high):
                after[high], warmed[high] = rows.chosen(high).topped_up(
                    level[high], celsius[high], draw[high], net[high], seconds[high]
                )
            level, celsius = after, warmed
        return level, celsius

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """What stays with devices while they live, ``[n]``; ``fed`` is what arrives of a charger."""

    capacity_joules: Floats
    full_watts: Floats
    idle_watts: Floats
    in_use_watts: Floats
    idle_fed_watts: Floats
    in_use_fed_watts: Floats
    cases: Cases | None

    def chosen(self, rows: Indices) -> "_Rows":
        columns = {name: getattr(self, name)[rows] for name in self.__dataclass_fields__ if name != "cases"}
        return _Rows(**columns, cases=None if self.cases is None else self.cases.rows(rows))

    def topped_up(
        self, level: Floats, celsius: Floats, draw: Floats, net: Floats, seconds: Floats
    ) -> tuple[Floats, Floats]:
        """Levels and skins after a while of charging that ends above the knee."""
        taper = Taper.of(
            level,
            net_watts=net,
            full_watts=self.full_watts,
            capacity_joules=self.capacity_joules,
            seconds=seconds,
        )
        if self.cases is None:
            return taper.level_joules, celsius
        cases, tau = self.cases, self.cases.time_constant_s
        celsius = _warmed(cases, celsius, draw, draw + net, taper.constant_s)
        share = warmed_by_decay(taper.falling_s, rate_per_s=taper.falling_per_s, time_constant_s=tau)
        lost_watts = _LOST_PER_ARRIVED * taper.falling_watts
        celsius = _warmed(cases, celsius, draw, draw, taper.falling_s) + cases.kelvin_per_watt * lost_watts * share
        return taper.level_joules, _warmed(cases, celsius, draw, draw, taper.full_s)


def _warmed(cases: Cases, celsius: Floats, draw: Floats, fed: Floats, seconds: Floats) -> Floats:
    settles_at = cases.settles_at_celsius(draw + _LOST_PER_ARRIVED * fed)
    return relaxed(celsius, settles_at, seconds, cases.time_constant_s)
