"""What an attempt does to a phone: how long its work takes in the heat, and its battery and skin afterwards.

Rules:

1. Whether a phone is on its charger and idle when it starts, settles how its skin and the charger fare while it trains;
   the battery's level follows the day as it is.
2. The skin warms by the radio while it downloads and uploads, by the CPU while it trains (``training_heat.py``).
3. What an attempt draws is drawn evenly over it; of one that ends as it starts, at once. The radio's tails are drawn,
   and warm nothing.
4. Without cases nothing warms: all training is at full speed.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.battery import Battery
from pocketfleet.device_sim.charging import CHARGING_EFFICIENCY_RATIO, accepted_watts
from pocketfleet.device_sim.day_changes import DayChanges
from pocketfleet.device_sim.thermal import relaxed
from pocketfleet.device_sim.thermal_policy import CHARGE_CELSIUS
from pocketfleet.device_sim.training_heat import Course, Power, course_of

if TYPE_CHECKING:
    from pocketfleet.device_sim.fleet import Fleet
    from pocketfleet.device_sim.flight import Flights

__all__ = ["Exertion"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


class Exertion:
    """Attempts of some devices that are about to start, columns ``[n]``.

    Args:
        fleet: the devices'.
        battery: likewise.
        charging: whether each is on its charger when it starts, ``[n]``.
        device: which, ``[n]``.
        level_joules: in the battery then.
        skin_celsius: of the skin then.
        receive_watts: of the download's radio.
    """

    def __init__(
        self,
        *,
        fleet: "Fleet",
        battery: Battery,
        charging: npt.NDArray[np.bool_],
        device: Indices,
        level_joules: Floats,
        skin_celsius: Floats,
        receive_watts: Floats,
    ) -> None:
        self._battery, self._device, self._receive_watts = battery, device, receive_watts
        self._level_joules, self._skin_celsius = level_joules, skin_celsius
        self._cases = None if battery.cases is None else battery.cases.rows(device)
        self._power = Power(
            cpu_watts=fleet.compute_watts[device],
            idle_watts=fleet.idle_watts[device],
            charger_watts=np.where(charging & fleet.has_charger[device], battery.charge_watts(device), 0.0),
            taken_watts=accepted_watts(
                level_joules,
                full_watts=battery.full_watts(device),
                capacity_joules=fleet.battery_capacity_joules[device],
            ),
        )

    def course(self, *, download_s: Floats, work_s: Floats, until_s: Floats) -> Course | None:
        """How training goes after an undisturbed download; ``None`` without cases.

        Args:
            download_s: ``[n]``.
            work_s: seconds of training at full speed, ``[n]``.
            until_s: seconds after which training is of no interest, ``[n]``.
        """
        if self._cases is None:
            return None
        celsius, _ = self._after_transfer(self._skin_celsius, self._receive_watts, download_s)
        return course_of(self._power, self._cases, celsius, work_s=work_s, until_s=until_s)

    def battery_lasts_s(self, course: Course | None, *, floor_joules: Floats) -> Floats:
        """Seconds of training until batteries are at their floors; inf where charging keeps up; ``[n]``.

        A cycle of the course counts by its mean.
        """
        power, above_joules = self._power, np.maximum(self._level_joules - floor_joules, 0.0)
        if course is None:
            lost_watts = power.cpu_watts + power.idle_watts - power.charger_watts * CHARGING_EFFICIENCY_RATIO
            return np.divide(above_joules, lost_watts, out=np.full_like(above_joules, np.inf), where=lost_watts > 0.0)
        lost_watts = course.cpu_watts + power.idle_watts[:, None] - course.charger_watts * CHARGING_EFFICIENCY_RATIO
        lasts_s = _runs_out_s(above_joules, lost_watts, course)
        cycles = np.isfinite(course.cycle_from_s) & (lasts_s == np.inf)
        first_joules = course.total(lost_watts, np.where(cycles, course.cycle_from_s, 0.0))
        mean_watts = course.total_of_cycle(lost_watts) / np.where(cycles, course.cycle_s, 1.0)
        falling = cycles & (mean_watts > 0.0)
        return np.where(
            falling, course.cycle_from_s + (above_joules - first_joules) / np.where(falling, mean_watts, 1.0), lasts_s
        )

    def after(
        self, flights: "Flights", course: Course | None, day: DayChanges, *, transmit_watts: Floats
    ) -> tuple[Floats, Floats]:
        """Joules in the batteries and degrees of the skins when attempts end, ``[n]`` each.

        Args:
            flights: the attempts, ``[n]``.
            course: that they took.
            day: the devices' changes from the attempts' starts to their ends, or beyond.
            transmit_watts: of the uploads' radios, ``[n]``.
        """
        seconds = flights["end_s"] - flights["start_s"]
        drawn_joules = flights["download_joules"] + flights["train_joules"] + flights["upload_joules"]
        celsius, withheld_joules = self._skin_after(flights, course, transmit_watts)
        work_watts, withheld_watts = (
            np.divide(joules, seconds, out=np.zeros_like(seconds), where=seconds > 0.0)
            for joules in (drawn_joules, withheld_joules)
        )
        level = self._battery.after_work(
            self._device,
            self._level_joules,
            replace(day, until_s=flights["end_s"]),
            work_watts=work_watts,
            most_watts=self._battery.charge_watts(self._device) - withheld_watts,
        )
        return level - np.where(seconds > 0.0, 0.0, drawn_joules), celsius

    def _skin_after(self, flights: "Flights", course: Course | None, transmit_watts: Floats) -> tuple[Floats, Floats]:
        """Degrees at the end, and joules that the charger kept back because of the heat."""
        if course is None:
            return self._skin_celsius, np.zeros(len(flights))
        celsius, down_joules = self._after_transfer(self._skin_celsius, self._receive_watts, flights["download_s"])
        celsius = np.where(flights["train_s"] > 0.0, course.celsius(flights["train_s"]), celsius)
        celsius, up_joules = self._after_transfer(celsius, transmit_watts, flights["upload_s"])
        return celsius, down_joules + course.total(course.withheld_watts, flights["train_s"]) + up_joules

    def _after_transfer(self, celsius: Floats, radio_watts: Floats, seconds: Floats) -> tuple[Floats, Floats]:
        """The same after a transfer; a charger that is held when it begins is held throughout."""
        power, cases = self._power, self._cases
        if cases is None:
            return celsius, np.zeros_like(seconds)
        given = power.given_watts(radio_watts)
        held = np.minimum(given, cases.held_charge_watts(power.idle_watts + radio_watts))
        charger = np.where(celsius >= CHARGE_CELSIUS, held, given)
        lost_watts = (1.0 - CHARGING_EFFICIENCY_RATIO) * charger
        settles_at = cases.settles_at_celsius(power.idle_watts + radio_watts + lost_watts)
        withheld_watts = np.where(charger < given, power.charger_watts - charger, 0.0)
        return relaxed(celsius, settles_at, seconds, cases.time_constant_s), withheld_watts * seconds


def _runs_out_s(joules: Floats, lost_watts: Floats, course: Course) -> Floats:
    """When so many joules are first lost, within the pieces of a course; ``[n]``, inf: not in them."""
    pieces = course.length_s > 0.0
    lost_joules = np.multiply(lost_watts, course.length_s, out=np.zeros_like(lost_watts), where=lost_watts != 0.0)
    before_joules = np.concatenate([np.zeros((len(joules), 1)), np.cumsum(lost_joules, axis=1)[:, :-1]], axis=1)
    left_joules = joules[:, None] - np.where(pieces, before_joules, 0.0)
    reached = pieces & (lost_watts > 0.0) & (left_joules <= lost_joules)
    after_s = np.divide(left_joules, lost_watts, out=np.full_like(lost_watts, np.inf), where=reached)
    first_s: Floats = np.where(reached, course.begin_s + after_s, np.inf).min(axis=1)
    return first_s
