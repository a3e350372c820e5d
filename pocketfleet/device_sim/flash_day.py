"""A phone's day whose idle-charging-on-Wi-Fi time is that of a published trace: "flash-2020".

Virtual time 0 is midnight of the trace's clock (its time zone is not known), here of a Monday. Rules:

1. Intervals recur: *use* (the screen is on), *night* and *top-up* (charging), *trips* (``trip``: to work and back with
   charging at the desk, or out). A phone is idle outside use; charges inside night, top-up and at the desk; is on Wi-Fi
   at home and, some, at work, and never on the way. Some phones have no Wi-Fi anywhere.
2. How often a device is used, charged and taken where is its habit, drawn once by (seed, device).
3. Only the *conjunction* of the three states is published. It is calibrated, over 2,000 devices and 5 days on a grid
   of 30 minutes, to PKU-Chengxu/FLASH data/state_traces.json as sampled by Dr-PKDP/FMCL-Convergence-Privacy@bd2bbe3
   results/e5/availability_matrix.npy (723 phones, 5 days of January and February 2020): mean 8.1 %, highest over
   lowest half hour 2.26, 29 % of phones never, median session 1 h. Every number of the marginals below is assumed,
   chosen to that end.
4. Devices are independent given the hour: no correlation between phones is visible in the trace.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.day_changes import CHARGING, IDLE, WIFI, DayChanges, DayState, next_change_by_changes
from pocketfleet.device_sim.recurring import Bools, Drawn, Floats, Indices, Recurring, Spans
from pocketfleet.device_sim.trip import HABITS, Trips, draw_trips
from pocketfleet.training.draws import draw_key, uniform

__all__ = ["FlashDay"]

_HOUR_S = 3600.0
_DAY_S = 24 * _HOUR_S
# How far a look for the next change goes at once; most come within.
_LOOK_AHEAD_S = 2 * _HOUR_S

# All numbers from here on are assumed, and calibrated as rule 3 says.
_WITHOUT_WIFI_RATIO = 0.225
# Chance that a half hour holds a use of the screen, by hour of the day, of a device of mean use: few at night, some by
# day, most in the evening.
_USE_BY_HOUR = np.interp(
    np.arange(24), (0, 2, 3, 5, 6, 12, 18, 19, 22, 23), (0.19, 0.08, 0.05, 0.08, 0.19, 0.26, 0.28, 0.52, 0.54, 0.34)
)
_USE_MEAN_S, _USE_MOST_S, _USE_SPREAD = 360.0, _HOUR_S, 0.63
# Charging at night: chance by trait, LEAST + SPREAD * trait ** POWER; start and length (from, to).
_NIGHT_LEAST, _NIGHT_SPREAD, _NIGHT_POWER = 0.125, 0.14, 2.4
_NIGHT_START_S = (20.0 * _HOUR_S, 31.5 * _HOUR_S)
_NIGHT_LENGTH_POWER = 2.0
_NIGHT_LENGTH_S = (0.5 * _HOUR_S, 15.5 * _HOUR_S)
# Charging at any time: chance in four hours by trait, likewise; length.
_TOP_UP_LEAST, _TOP_UP_SPREAD, _TOP_UP_POWER = 0.042, 1.2, 5.0
_TOP_UP_MEAN_S, _TOP_UP_MOST_S = 1.15 * _HOUR_S, 8 * _HOUR_S


class FlashDay:
    """The days of every device of a seed; the module says what of them is published and what assumed.

    Args:
        seed: the experiment's.
        always: bits of conditions that hold whatever the day says, see ``day_changes``.
    """

    def __init__(self, *, seed: int, always: int = 0) -> None:
        self._seed = seed
        self._always = int(always)

    def state(self, devices: npt.ArrayLike, now_s: float | Floats) -> DayState:
        """What devices are at ``now_s``.

        Args:
            devices: ``[n]``.
            now_s: virtual time, one for all or ``[n]``; at most a day before 0.
        """
        device, at_s = _columns(devices, now_s)
        lived = self._lived(device, at_s, at_s)
        charging = lived.night.hold(at_s) | lived.top_up.hold(at_s) | lived.trips.desk.hold(at_s)
        wifi = lived.has_wifi & ~lived.trips.off_wifi().hold(at_s)
        return DayState(idle=~lived.use.hold(at_s), charging=charging, wifi=wifi).with_always(self._always)

    def next_change_s(self, devices: npt.ArrayLike, now_s: float | Floats) -> Floats:
        """When the state of each device next differs from the one at ``now_s``, ``[n]``; infinite if never."""
        device, at_s = _columns(devices, now_s)
        # Of two conditions that can change each does some day; Wi-Fi alone only where there is some.
        changes = np.full(len(device), self._always != IDLE | CHARGING | WIFI)
        if self._always == IDLE | CHARGING:
            changes = self._has_wifi(self._traits(device))
        change_s = np.full(len(device), np.inf)
        change_s[changes] = next_change_by_changes(self.changes, device[changes], at_s[changes], window_s=_LOOK_AHEAD_S)
        return change_s

    def changes(self, devices: npt.ArrayLike, from_s: float | Floats, until_s: float | Floats) -> DayChanges:
        """Every change of devices after ``from_s`` and before ``until_s``; each one for all or ``[n]``."""
        device, start_s = _columns(devices, from_s)
        end_s = np.broadcast_to(np.asarray(until_s, dtype=np.float64), device.shape)
        lived = self._lived(device, start_s, end_s)
        bounds = (lived.use, lived.trips.off_wifi(), lived.night, lived.top_up, lived.trips.desk)
        event_s = np.concatenate([bound_s for span in bounds for bound_s in (span.start_s, span.end_s)], axis=1)
        # How many of each kind are under way after an event: one more at a start, one fewer at an end.
        using, leaving, charging = (np.zeros(event_s.shape[1], dtype=np.int8) for _ in range(3))
        at = 0
        for span, count in zip(bounds, (using, leaving, charging, charging, charging), strict=True):
            slots = span.start_s.shape[1]
            count[at : at + slots], count[at + slots : at + 2 * slots] = 1, -1
            at += 2 * slots
        order = event_s.argsort(axis=1, kind="stable")
        idle, away_now, charges = (count[order].cumsum(axis=1, dtype=np.int8) for count in (using, leaving, charging))
        state = DayState(idle=idle == 0, charging=charges > 0, wifi=lived.has_wifi[:, np.newaxis] & (away_now == 0))
        code = state.code | np.uint8(self._always)
        return DayChanges.of_events(start_s, end_s, np.take_along_axis(event_s, order, axis=1), code)

    def place(self, devices: npt.ArrayLike, now_s: float | Floats) -> npt.NDArray[np.int8]:
        """Where devices are at ``now_s``, a ``Place``; ``int8 [n]``."""
        device, at_s = _columns(devices, now_s)
        return draw_trips(self._seed, device, self._traits(device)[:, _TRIP_HABITS], at_s, at_s).place(at_s)

    def local_s(self, devices: npt.ArrayLike, now_s: float | Floats) -> Floats:
        """``now_s``: virtual time 0 is everyone's midnight, of a Monday."""
        return np.broadcast_to(np.asarray(now_s, dtype=np.float64), np.atleast_1d(devices).shape)

    def _traits(self, device: Indices) -> Floats:
        return uniform(draw_key(self._seed, "day.traits", device), len(_TRAITS))

    @staticmethod
    def _has_wifi(traits: Floats) -> Bools:
        has_wifi: Bools = _trait(traits, "wifi")[:, 0] >= _WITHOUT_WIFI_RATIO
        return has_wifi

    def _lived(self, device: Indices, from_s: Floats, until_s: Floats) -> "_Lived":
        """All intervals of devices that hold any time from ``from_s`` to ``until_s``."""
        traits = self._traits(device)
        use, night, top_up = (
            kind.spans(self._seed, device, traits, from_s, slots_ahead=kind.slots_ahead(from_s, until_s))
            for kind in (_USE, _NIGHT, _TOP_UP)
        )
        trips = draw_trips(self._seed, device, traits[:, _TRIP_HABITS], from_s, until_s)
        return _Lived(use=use, night=night, top_up=top_up, trips=trips, has_wifi=self._has_wifi(traits))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lived:
    """The intervals of ``n`` devices over a while, and whether each ever is on Wi-Fi, ``[n]``."""

    use: Spans
    night: Spans
    top_up: Spans
    trips: Trips
    has_wifi: Bools


def _columns(devices: npt.ArrayLike, now_s: float | Floats) -> tuple[Indices, Floats]:
    device = np.asarray(devices, dtype=np.int64)
    return device, np.broadcast_to(np.asarray(now_s, dtype=np.float64), device.shape)


# What stays with a device: a uniform number in [0, 1) each, in this order.
_TRAITS = ("wifi", "use", "night", "top_up", *HABITS)
_TRIP_HABITS = slice(4, 4 + len(HABITS))


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
        length_s=least_s + (most_s - least_s) * chance[..., 3] ** _NIGHT_LENGTH_POWER,
    )


def _draw_top_up(traits: Floats, _slot_start_s: Floats, chance: Floats) -> Drawn:
    habit = _trait(traits, "top_up")
    return Drawn(
        happens=chance[..., 0] < _TOP_UP_LEAST + _TOP_UP_SPREAD * habit**_TOP_UP_POWER,
        after_s=chance[..., 1] * _TOP_UP.slot_s,
        length_s=_exponential(chance[..., 2], mean_s=(0.5 + habit) * _TOP_UP_MEAN_S, most_s=_TOP_UP_MOST_S),
    )


def _exponential(chance: Floats, *, mean_s: float | Floats, most_s: float) -> Floats:
    return np.minimum(-mean_s * np.log1p(-chance), most_s)


def _triangular(first: Floats, second: Floats, bounds_s: tuple[float, float]) -> Floats:
    low_s, high_s = bounds_s
    return low_s + (high_s - low_s) * (first + second) / 2.0


# The longest interval of each kind ends within ``slots_back`` slots after its own.
_USE = Recurring(purpose="day.use", slot_s=_HOUR_S / 2, offset_s=0.0, slots_back=2, draw=_draw_use, chances=3)
_NIGHT = Recurring(purpose="day.night", slot_s=_DAY_S, offset_s=-_DAY_S / 2, slots_back=1, draw=_draw_night, chances=4)
_TOP_UP = Recurring(purpose="day.top_up", slot_s=4 * _HOUR_S, offset_s=0.0, slots_back=2, draw=_draw_top_up, chances=3)
