"""The trips of devices: to work and back on a working day, or out on a day off; at most one a day.

Rules:

1. A day of trips goes from 4:00 to 4:00, and a trip ends within its day. Day 0 is a Monday.
2. Some devices work: on their five working days of the week, mostly Monday to Friday, and not on every one of them,
   they leave home at about the same time, are on the way, stay at work, are on the way back. On any other day they,
   and the devices that never work, may go out, and are on the way all the time.
3. There is no Wi-Fi on the way. At work some devices have Wi-Fi, always or never.
4. At work a device may be charged at the desk, by habit.
5. When a device leaves, how long it travels and stays are its habits, the last two of which vary from day to day.
   Numbers are assumed where no source is named.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.place import Place
from pocketfleet.device_sim.recurring import SLOTS_BEFORE_ZERO, Spans, on_grid
from pocketfleet.training.draws import draw_key, uniform

__all__ = ["HABITS", "Trips", "draw_trips"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_HOUR_S = 3600.0
_DAY_S = 24 * _HOUR_S
_DAY_STARTS_S = 4 * _HOUR_S
# What stays with a device: a uniform number in [0, 1) each, in this order.
HABITS = ("work", "days", "start", "way", "stay", "desk")

# Devices that work, and those among them with Wi-Fi there.
_WORK_RATIO, _WORK_WIFI_RATIO = 0.6, 0.45
# Those that work Monday to Friday; the others' five days begin on another day of the week.
_WEEKDAYS_RATIO = 0.8
# Chance of a working day that it is one: holidays, illness, work at home.
_WORK_CHANCE = 0.85
_START_S, _START_JITTER_S = (6.0 * _HOUR_S, 9.5 * _HOUR_S), 0.3 * _HOUR_S
# One way: log-logistic. 27.6 min in the mean, 9.8 % an hour or more: Burd, Burrows and McKenzie 2021, "Travel time to
# work in the United States: 2019" (Census Bureau, ACS-47). Median and shape are computed from the two, with an end at
# two hours, which is assumed.
_WAY_MEDIAN_S, _WAY_SHAPE, _WAY_MOST_S = 19.8 * 60.0, 2.0, 2.0 * _HOUR_S
_STAY_S, _STAY_JITTER_S = (6.0 * _HOUR_S, 9.5 * _HOUR_S), 0.5 * _HOUR_S
_OUTING_CHANCE = 0.17
_OUTING_START_S, _OUTING_LENGTH_S = (9.0 * _HOUR_S, 19.0 * _HOUR_S), (0.5 * _HOUR_S, 4.0 * _HOUR_S)
# Charging at the desk: chance a day at work by habit, LEAST + SPREAD * habit ** POWER; begins in the first part of the
# stay, ends with it at the latest.
_DESK_LEAST, _DESK_SPREAD, _DESK_POWER = 0.04, 0.7, 2.6
_DESK_WITHIN_RATIO, _DESK_MEAN_S = 0.7, 1.5 * _HOUR_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Trips:
    """The trips of ``n`` devices on some days, ``[n, days]`` each; all times infinitely early where there is none.

    Attributes:
        leave_s: left home.
        arrive_s: at work; of an outing, home again.
        depart_s: left work; likewise.
        home_s: home again.
        desk: charging at work.
        work_wifi: ``[n, 1]``, whether there is Wi-Fi at work.
    """

    leave_s: Floats
    arrive_s: Floats
    depart_s: Floats
    home_s: Floats
    desk: Spans
    work_wifi: Bools

    def off_wifi(self) -> Spans:
        """When there is no Wi-Fi: on the way, and at work where there is none; ``[n, 2 * days]``."""
        never = np.float64(-np.inf)
        first_s = np.where(self.work_wifi, self.arrive_s, self.home_s)
        back_s, home_s = (np.where(self.work_wifi, at_s, never) for at_s in (self.depart_s, self.home_s))
        return Spans(
            start_s=np.concatenate([self.leave_s, back_s], axis=1), end_s=np.concatenate([first_s, home_s], axis=1)
        )

    def place(self, now_s: Floats) -> npt.NDArray[np.int8]:
        """``Place`` at ``now_s``, ``[n]``."""
        at_work = Spans(start_s=self.arrive_s, end_s=self.depart_s).hold(now_s)
        out = Spans(start_s=self.leave_s, end_s=self.home_s).hold(now_s)
        return np.select([at_work, out], [Place.WORK, Place.COMMUTE], Place.HOME).astype(np.int8)


def draw_trips(seed: int, devices: Indices, habits: Floats, from_s: Floats, until_s: Floats) -> Trips:
    """All trips that hold any time from ``from_s`` to ``until_s``.

    Args:
        seed: the experiment's.
        devices: ``[n]``.
        habits: ``[n, len(HABITS)]``, uniform in [0, 1).
        from_s: ``[n]``, at most a day before 0.
        until_s: ``[n]``, not before ``from_s``.
    """
    first, last = (np.floor((at_s - _DAY_STARTS_S) / _DAY_S).astype(np.int64) for at_s in (from_s, until_s))
    day = first[:, np.newaxis] + np.arange(int((last - first).max(initial=0)) + 1)
    chance = uniform(draw_key(seed, "day.trip", devices[:, np.newaxis], day + SLOTS_BEFORE_ZERO), 5)
    habit = {name: habits[:, column, np.newaxis] for column, name in enumerate(HABITS)}
    works = _works(habit, day, chance[..., 0])
    leave_s, home_s, way_s = _hours(habit, works, chance)
    goes = works | (chance[..., 0] >= 1.0 - _OUTING_CHANCE)
    midnight_s = np.where(goes, day * _DAY_S, -np.inf)
    leave_s, home_s = on_grid(midnight_s + leave_s), on_grid(midnight_s + home_s)
    arrive_s = np.where(works, on_grid(leave_s + way_s), home_s)
    depart_s = np.where(works, on_grid(home_s - way_s), home_s)
    return Trips(
        leave_s=leave_s,
        arrive_s=arrive_s,
        depart_s=depart_s,
        home_s=home_s,
        desk=_desk(habit["desk"], works, chance, arrive_s, depart_s),
        work_wifi=habit["work"] < _WORK_RATIO * _WORK_WIFI_RATIO,
    )


def _works(habit: dict[str, Floats], day: Indices, chance: Floats) -> Bools:
    """Whether devices go to work, ``[n, days]``."""
    other = np.maximum(habit["days"] - _WEEKDAYS_RATIO, 0.0) / (1.0 - _WEEKDAYS_RATIO)
    # 0: the five days begin on Monday; 1 to 6: so many days earlier.
    shift = np.where(habit["days"] < _WEEKDAYS_RATIO, 0, 1 + (6.0 * other).astype(np.int64))
    works: Bools = (habit["work"] < _WORK_RATIO) & ((day + shift) % 7 < 5) & (chance < _WORK_CHANCE)
    return works


def _hours(habit: dict[str, Floats], works: Bools, chance: Floats) -> tuple[Floats, Floats, Floats]:
    """When devices leave and come home, since midnight, and how long one way to work is; they broadcast together."""
    jitter, length = 2.0 * chance[..., 1] - 1.0, 2.0 * chance[..., 2] - 1.0
    way_s = np.minimum(_WAY_MEDIAN_S * (habit["way"] / (1.0 - habit["way"])) ** (1.0 / _WAY_SHAPE), _WAY_MOST_S)
    leave_s = np.where(
        works, _between(_START_S, habit["start"]) + _START_JITTER_S * jitter, _between(_OUTING_START_S, chance[..., 1])
    )
    stay_s = _between(_STAY_S, habit["stay"]) + _STAY_JITTER_S * length
    away_s = np.where(works, 2.0 * way_s + stay_s, _between(_OUTING_LENGTH_S, chance[..., 2]))
    return leave_s, leave_s + away_s, way_s


def _desk(habit: Floats, works: Bools, chance: Floats, arrive_s: Floats, depart_s: Floats) -> Spans:
    charges = works & (chance[..., 3] < _DESK_LEAST + _DESK_SPREAD * habit**_DESK_POWER)
    # What is left of the first of a day's numbers, given that it is a working day, is uniform too.
    after = np.where(charges, chance[..., 0] / _WORK_CHANCE * _DESK_WITHIN_RATIO, 0.0)
    stay_s = np.where(charges, depart_s - np.where(charges, arrive_s, 0.0), 0.0)
    start_s = np.where(charges, on_grid(arrive_s + after * stay_s), -np.inf)
    end_s = np.minimum(on_grid(start_s - _DESK_MEAN_S * np.log1p(-chance[..., 4])), depart_s)
    return Spans(start_s=start_s, end_s=np.where(charges, end_s, -np.inf))


def _between(bounds_s: tuple[float, float], share: Floats) -> Floats:
    low_s, high_s = bounds_s
    return low_s + (high_s - low_s) * share
