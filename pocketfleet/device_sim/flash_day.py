"""A phone's day whose idle-charging-on-Wi-Fi time is that of a published trace: "flash-2020".

Virtual time 0 is midnight of the trace's clock (its time zone is not known). Rules:

1. Four kinds of intervals recur: *use* (the screen is on), *night* and *top-up* (charging), *away* (off Wi-Fi). A phone
   is idle outside use, charges inside night and top-up, is on Wi-Fi outside away; some phones have no Wi-Fi.
2. How often a device is used, charged and taken away are its traits, drawn once by (seed, device).
3. Only the *conjunction* of the three states is published. It is calibrated, over 2,000 devices and 5 days on a grid
   of 30 minutes, to PKU-Chengxu/FLASH data/state_traces.json as sampled by Dr-PKDP/FMCL-Convergence-Privacy@bd2bbe3
   results/e5/availability_matrix.npy (723 phones, 5 days of January and February 2020): mean 8.1 %, highest over
   lowest half hour 2.26, 29 % of phones never, median session 1 h. Every number of the marginals below is assumed,
   chosen to that end.
4. Devices are independent given the hour: no correlation between phones is visible in the trace.
"""

import math

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.day_changes import DayChanges, DayState, next_change_by_changes
from pocketfleet.device_sim.place import always_home
from pocketfleet.device_sim.recurring import Bools, Drawn, Floats, Indices, Recurring, Spans
from pocketfleet.training.draws import draw_key, uniform

__all__ = ["FlashDay"]

_HOUR_S = 3600.0
_DAY_S = 24 * _HOUR_S
# How far a look for the next change goes at once; most come within.
_LOOK_AHEAD_S = 2 * _HOUR_S

# All numbers from here on are assumed, and calibrated as rule 3 says.
_WITHOUT_WIFI_RATIO = 0.235
# Chance that a half hour holds a use of the screen, by hour of the day, of a device of mean use: few at night, some by
# day, most in the evening.
_USE_BY_HOUR = np.interp(
    np.arange(24), (0, 2, 3, 5, 6, 12, 18, 19, 22, 23), (0.25, 0.10, 0.07, 0.10, 0.25, 0.35, 0.37, 0.70, 0.72, 0.45)
)
_USE_MEAN_S, _USE_MOST_S, _USE_SPREAD = 360.0, _HOUR_S, 0.63
# Charging at night: chance by trait, LEAST + SPREAD * trait ** POWER; start and length (from, to).
_NIGHT_LEAST, _NIGHT_SPREAD, _NIGHT_POWER = 0.11, 0.27, 2.6
_NIGHT_START_S = (20.3 * _HOUR_S, 30.8 * _HOUR_S)
_NIGHT_LENGTH_S = (0.6 * _HOUR_S, 12.6 * _HOUR_S)
# Charging at any time: chance in four hours by trait, likewise; length.
_TOP_UP_LEAST, _TOP_UP_SPREAD, _TOP_UP_POWER = 0.044, 0.95, 4.0
_TOP_UP_MEAN_S, _TOP_UP_MOST_S = 1.2 * _HOUR_S, 8 * _HOUR_S
# Away from unmetered Wi-Fi (which work may have): chance a day; start and length (from, to).
_AWAY_CHANCE = 0.15
_AWAY_START_S = (6.8 * _HOUR_S, 10.0 * _HOUR_S)
_AWAY_LENGTH_S = (2.0 * _HOUR_S, 10.0 * _HOUR_S)


class FlashDay:
    """The days of every device of a seed; the module says what of them is published and what assumed."""

    def __init__(self, *, seed: int) -> None:
        self._seed = seed

    def state(self, devices: npt.ArrayLike, now_s: float | Floats) -> DayState:
        """What devices are at ``now_s``.

        Args:
            devices: ``[n]``.
            now_s: virtual time, one for all or ``[n]``; 0 or more.
        """
        device, at_s = _columns(devices, now_s)
        use, night, top_up, away = self._spans(device, at_s, at_s)
        return DayState(
            idle=~use.hold(at_s),
            charging=night.hold(at_s) | top_up.hold(at_s),
            wifi=self._has_wifi(device) & ~away.hold(at_s),
        )

    def next_change_s(self, devices: npt.ArrayLike, now_s: float | Floats) -> Floats:
        """When the state of each device next differs from the one at ``now_s``, ``[n]``; later than ``now_s``."""
        device, at_s = _columns(devices, now_s)
        return next_change_by_changes(self.changes, device, at_s, window_s=_LOOK_AHEAD_S)

    def changes(self, devices: npt.ArrayLike, from_s: float | Floats, until_s: float | Floats) -> DayChanges:
        """Every change of devices after ``from_s`` and before ``until_s``; each one for all or ``[n]``."""
        device, start_s = _columns(devices, from_s)
        end_s = np.broadcast_to(np.asarray(until_s, dtype=np.float64), device.shape)
        use, night, top_up, away = self._spans(device, start_s, end_s)
        bounds = (use, away, night, top_up)
        event_s = np.concatenate([bound_s for span in bounds for bound_s in (span.start_s, span.end_s)], axis=1)
        # How many of each kind are under way after an event: one more at a start, one fewer at an end.
        using, leaving, charging = (np.zeros(event_s.shape[1], dtype=np.int8) for _ in range(3))
        at = 0
        for span, count in zip(bounds, (using, leaving, charging, charging), strict=True):
            slots = span.start_s.shape[1]
            count[at : at + slots], count[at + slots : at + 2 * slots] = 1, -1
            at += 2 * slots
        order = event_s.argsort(axis=1, kind="stable")
        idle, away_now, charges = (count[order].cumsum(axis=1, dtype=np.int8) for count in (using, leaving, charging))
        state = DayState(
            idle=idle == 0, charging=charges > 0, wifi=self._has_wifi(device)[:, np.newaxis] & (away_now == 0)
        )
        return DayChanges.of_events(start_s, end_s, np.take_along_axis(event_s, order, axis=1), state.code)

    def place(self, devices: npt.ArrayLike, now_s: float | Floats) -> npt.NDArray[np.int8]:
        """At home: this day tells no places."""
        del now_s
        return always_home(devices)

    def local_s(self, devices: npt.ArrayLike, now_s: float | Floats) -> Floats:
        """``now_s``: virtual time 0 is everyone's midnight."""
        return np.broadcast_to(np.asarray(now_s, dtype=np.float64), np.atleast_1d(devices).shape)

    def _traits(self, device: Indices) -> Floats:
        return uniform(draw_key(self._seed, "day.traits", device), len(_TRAITS))

    def _has_wifi(self, device: Indices) -> Bools:
        has_wifi: Bools = self._traits(device)[:, _TRAITS.index("wifi")] >= _WITHOUT_WIFI_RATIO
        return has_wifi

    def _spans(self, device: Indices, from_s: Floats, until_s: Floats) -> tuple[Spans, Spans, Spans, Spans]:
        """Use, night, top-up and away of devices, all that hold any time from ``from_s`` to ``until_s``."""
        traits = self._traits(device)
        longest_s = float((until_s - from_s).max(initial=0.0))
        use, night, top_up, away = (
            kind.spans(self._seed, device, traits, from_s, slots_ahead=math.ceil(longest_s / kind.slot_s))
            for kind in (_USE, _NIGHT, _TOP_UP, _AWAY)
        )
        return use, night, top_up, away


def _columns(devices: npt.ArrayLike, now_s: float | Floats) -> tuple[Indices, Floats]:
    device = np.asarray(devices, dtype=np.int64)
    return device, np.broadcast_to(np.asarray(now_s, dtype=np.float64), device.shape)


# What stays with a device: a uniform number in [0, 1) each, in this order.
_TRAITS = ("wifi", "use", "night", "top_up", "away")


def _trait(traits: Floats, name: str) -> Floats:
    """One trait, ``[n, 1]``: the same in all slots."""
    column = _TRAITS.index(name)
    return traits[:, column : column + 1]


def _draw_use(traits: Floats, slot_start_s: Floats, chance: Floats) -> Drawn:
    hour = (slot_start_s % _DAY_S // _HOUR_S).astype(np.int64)
    habit = 1.0 + _USE_SPREAD * (2.0 * _trait(traits, "use") - 1.0)
    return Drawn(
        happens=chance[..., 0] < _USE_BY_HOUR[hour] * habit,
        after_s=chance[..., 1] * _USE.slot_s,
        length_s=_exponential(chance[..., 2], mean_s=_USE_MEAN_S, most_s=_USE_MOST_S),
    )


def _draw_night(traits: Floats, _slot_start_s: Floats, chance: Floats) -> Drawn:
    least_s, most_s = _NIGHT_LENGTH_S
    return Drawn(
        happens=chance[..., 0] < _NIGHT_LEAST + _NIGHT_SPREAD * _trait(traits, "night") ** _NIGHT_POWER,
        # The slot starts at noon.
        after_s=_triangular(chance[..., 1], chance[..., 2], _NIGHT_START_S) - _DAY_S / 2,
        length_s=least_s + (most_s - least_s) * chance[..., 3] ** 2,
    )


def _draw_top_up(traits: Floats, _slot_start_s: Floats, chance: Floats) -> Drawn:
    habit = _trait(traits, "top_up")
    return Drawn(
        happens=chance[..., 0] < _TOP_UP_LEAST + _TOP_UP_SPREAD * habit**_TOP_UP_POWER,
        after_s=chance[..., 1] * _TOP_UP.slot_s,
        length_s=_exponential(chance[..., 2], mean_s=(0.5 + habit) * _TOP_UP_MEAN_S, most_s=_TOP_UP_MOST_S),
    )


def _draw_away(traits: Floats, _slot_start_s: Floats, chance: Floats) -> Drawn:
    least_s, most_s = _AWAY_LENGTH_S
    return Drawn(
        happens=chance[..., 0] < _AWAY_CHANCE * (0.5 + _trait(traits, "away")),
        after_s=_triangular(chance[..., 1], chance[..., 2], _AWAY_START_S),
        length_s=least_s + (most_s - least_s) * chance[..., 3],
    )


def _exponential(chance: Floats, *, mean_s: float | Floats, most_s: float) -> Floats:
    return np.minimum(-mean_s * np.log1p(-chance), most_s)


def _triangular(first: Floats, second: Floats, bounds_s: tuple[float, float]) -> Floats:
    low_s, high_s = bounds_s
    return low_s + (high_s - low_s) * (first + second) / 2.0


# The longest interval of each kind ends within ``slots_back`` slots after its own.
_USE = Recurring(purpose="day.use", slot_s=_HOUR_S / 2, offset_s=0.0, slots_back=2, draw=_draw_use)
_NIGHT = Recurring(purpose="day.night", slot_s=_DAY_S, offset_s=-_DAY_S / 2, slots_back=1, draw=_draw_night)
_TOP_UP = Recurring(purpose="day.top_up", slot_s=4 * _HOUR_S, offset_s=0.0, slots_back=2, draw=_draw_top_up)
_AWAY = Recurring(purpose="day.away", slot_s=_DAY_S, offset_s=0.0, slots_back=1, draw=_draw_away)
