"""Availabilities: who says when a device is idle, charging and on unmetered Wi-Fi.

An availability answers three questions about any devices at any time, without a stored history: what is the state
now, when does it next change, and what are all changes of a while. ``flash_day.py`` is the one with a day; here are the
seam, the trivial one and the names. ``availability_trace.py`` replays days that were recorded, ``time_zone.py`` lets
any day be lived by local clocks.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.availability_trace import Repeat, TraceAvailability
from pocketfleet.device_sim.day_changes import CONDITIONS, DayChanges, DayState, walked_changes
from pocketfleet.device_sim.flash_day import FlashDay
from pocketfleet.device_sim.place import always_home
from pocketfleet.device_sim.time_zone import ZonedDay
from pocketfleet.device_sim.trace_events import TRACE_SUFFIXES, read_trace
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

    def changes(self, devices: npt.ArrayLike, from_s: float | Floats, until_s: float | Floats) -> DayChanges:
        """Every change after ``from_s`` and before ``until_s``; ``day_changes.walked_changes`` does for a start."""
        ...

    def place(self, devices: npt.ArrayLike, now_s: float | Floats) -> npt.NDArray[np.int8]:
        """Where each device is, a ``Place``; ``int8 [n]``."""
        ...

    def local_s(self, devices: npt.ArrayLike, now_s: float | Floats) -> Floats:
        """The time on each device's own clock: seconds since a midnight of its time zone; ``float64 [n]``."""
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

    def changes(self, devices: npt.ArrayLike, from_s: float | Floats, until_s: float | Floats) -> DayChanges:
        """None."""
        device = np.atleast_1d(np.asarray(devices, dtype=np.int64))
        start_s, end_s = (np.broadcast_to(np.asarray(at_s, np.float64), device.shape) for at_s in (from_s, until_s))
        return walked_changes(self, device, start_s, end_s)

    def place(self, devices: npt.ArrayLike, now_s: float | Floats) -> npt.NDArray[np.int8]:
        """At home, all the time."""
        del now_s
        return always_home(devices)

    def local_s(self, devices: npt.ArrayLike, now_s: float | Floats) -> Floats:
        """``now_s``: all are in one time zone."""
        return np.broadcast_to(np.asarray(now_s, dtype=np.float64), np.atleast_1d(devices).shape)


def _always(seed: int, always: int) -> Availability:
    del seed, always
    return AlwaysAvailable()


def _flash(seed: int, always: int) -> Availability:
    return FlashDay(seed=seed, always=always)


_BY_NAME: dict[str, Callable[[int, int], Availability]] = {"flash-2020": _flash, "always": _always}


def make_availability(
    name: str,
    *,
    seed: int,
    trace_repeat: Repeat = "days",
    trace_shift_s: float = 0.0,
    always: Collection[str] = (),
    time_zones: Mapping[str, float] | None = None,
) -> Availability:
    """The availability of that name, or of the recorded trace in that file, its days drawn or dealt by ``seed``.

    Args:
        name: one of the names, or the path of a trace.
        seed: the experiment's.
        trace_repeat: what follows a trace's end, see ``availability_trace``.
        trace_shift_s: added to a trace's times.
        always: conditions that hold whatever the day says, of ``idle``, ``charging``, ``wifi``.
        time_zones: weights by hours ahead of UTC; without any, all devices live by one clock.

    Raises:
        InputError: there is none, the message lists the names; or the trace, a condition or a zone is not right.
    """
    day = _one_clock(
        name, seed=seed, trace_repeat=trace_repeat, trace_shift_s=trace_shift_s, always=_condition_bits(always)
    )
    return ZonedDay(day, time_zones, seed=seed) if time_zones else day


def _condition_bits(names: Collection[str]) -> int:
    for name in names:
        if name not in CONDITIONS:
            raise InputError(f"fleet.always must name conditions out of {', '.join(CONDITIONS)}, got {name!r}")
    return sum(int(CONDITIONS[name]) for name in set(names))


def _one_clock(name: str, *, seed: int, trace_repeat: Repeat, trace_shift_s: float, always: int) -> Availability:
    if Path(name).suffix.lower() in TRACE_SUFFIXES:
        return TraceAvailability(read_trace(name), seed=seed, repeat=trace_repeat, shift_s=trace_shift_s, always=always)
    if name not in _BY_NAME:
        raise InputError(
            f"fleet.availability must be one of {', '.join(_BY_NAME)}, got {name!r}; or the path of a recorded trace, "
            f"which ends in {' or '.join(TRACE_SUFFIXES)}"
        )
    if trace_repeat != "days" or trace_shift_s != 0.0:
        raise InputError(
            f"fleet.trace_repeat and fleet.trace_shift_s are for a recorded trace, and fleet.availability is {name!r}: "
            "leave them out or name a trace"
        )
    return _BY_NAME[name](seed, always)
