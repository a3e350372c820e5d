"""A phone's free memory from moment to moment: may training start, and when is it killed?

Rules:

1. Training *needs* the program's planned memory plus what the app around it takes, from its start to its end. Transfers
   before and after hold no more than the app.
2. Free at a moment is what a phone has typically, less the share that other apps press it for
   (``memory_pressure``), less, while it is in use, what the app in front takes. It is never below 0.
3. A phone starts only if the need fits into what is free then, less a headroom.
4. While it trains, the first moment at which less than the need is free kills the process. The headroom is the margin.
5. All of it is a function of (seed, device, time) and of when the phone is in use; nothing is stored.
"""

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.day_changes import IDLE, DayChanges
from pocketfleet.device_sim.memory_pressure import MOST_RATIO, pressure_ratio, pressures
from pocketfleet.training.draws import draw_key, normal

__all__ = ["APP_SLOT_S", "HEADROOM_RATIO", "RUNTIME_BYTES", "FreeMemory", "fits", "runs_short"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# Assumed: a headless Android app process with a loaded native runtime, next to the planned memory.
RUNTIME_BYTES = 64 * 2**20
# Assumed: the share of free memory left alone, so that the low-memory killer has no reason to look.
HEADROOM_RATIO = 0.1
# Assumed: what the app in front takes is lognormal, of a median of a messenger's or a browser's size; one in twenty
# takes 1.3 GB or more, as large games do. It is another one every ten minutes of use.
_APP_MEDIAN_BYTES, _APP_SPREAD = 350e6, 0.8
APP_SLOT_S = 600.0
# Devices that are looked at together over a while: bounds the memory of their moments.
_BLOCK = 4096


def fits(training_memory_bytes: int, free_memory_bytes: Floats) -> Bools:
    """Whether training fits into what is free, less the headroom; ``bool [n]``.

    Args:
        training_memory_bytes: what the program plans: weights, state, activations, batch; 0 or more.
        free_memory_bytes: ``[n]``, what each device has free before the app starts.

    Raises:
        ValueError: ``training_memory_bytes`` is negative.
    """
    if training_memory_bytes < 0:
        raise ValueError(f"training_memory_bytes must be 0 or more, got {training_memory_bytes}")
    enough: Bools = free_memory_bytes * (1.0 - HEADROOM_RATIO) >= training_memory_bytes + RUNTIME_BYTES
    return enough


def runs_short(needed_bytes: int, free_memory_bytes: Floats) -> Bools:
    """Whether a training that runs is killed, by rule 4; any shape.

    Args:
        needed_bytes: what it holds, with the app's own.
        free_memory_bytes: what it and nobody else may hold.
    """
    short: Bools = free_memory_bytes < needed_bytes
    return short


class FreeMemory:
    """The free memory of a fleet's devices.

    Args:
        seed: the experiment's.
        typical_bytes: ``[devices]``, free in an idle phone that nothing presses.
        moments: without, all is at all times as in such a phone.
    """

    def __init__(self, *, seed: int, typical_bytes: Floats, moments: bool = True) -> None:
        self._seed = seed
        self._typical_bytes = typical_bytes
        self._moments = moments

    def free_bytes(self, devices: Indices, at_s: Floats, in_use: Bools) -> Floats:
        """What is free, by rule 2; all ``[n]``."""
        typical_bytes = self._typical_bytes[devices]
        if not self._moments:
            return typical_bytes
        return self._left(devices, at_s, pressure_ratio(self._seed, devices, at_s), in_use)

    def may_start(self, devices: Indices, at_s: Floats, in_use: Bools, *, training_memory_bytes: int) -> Bools:
        """Whether training may start, by rule 3, ``[n]``; most devices are beyond doubt and cost no draws."""
        started = fits(training_memory_bytes, self._typical_bytes[devices])
        least_bytes = self._typical_bytes[devices] * (1.0 - MOST_RATIO)
        doubtful = np.flatnonzero(started & (in_use | ~fits(training_memory_bytes, least_bytes)))
        if self._moments and len(doubtful):
            free = self.free_bytes(devices[doubtful], at_s[doubtful], in_use[doubtful])
            started[doubtful] = fits(training_memory_bytes, free)
        return started

    def killed_s(
        self, devices: Indices, from_s: Floats, until_s: Floats, day: DayChanges, *, needed_bytes: int
    ) -> Floats:
        """The first moment at which less is free than needed, by rule 4; infinite if there is none.

        Args:
            devices: ``[n]``.
            from_s: ``[n]``.
            until_s: ``[n]``; nothing happens at or after it.
            day: their changes, from ``from_s`` at the latest.
            needed_bytes: while training, with the app's own.
        """
        killed_s = np.full(len(devices), np.inf)
        if not self._moments:
            return killed_s
        used = ((day.code & IDLE) == 0).any(axis=1)
        least_bytes = self._typical_bytes[devices] * (1.0 - MOST_RATIO)
        doubtful = np.flatnonzero((from_s < until_s) & (used | (least_bytes < needed_bytes)))
        for start in range(0, len(doubtful), _BLOCK):
            rows = doubtful[start : start + _BLOCK]
            killed_s[rows] = self._first_short_s(
                devices[rows], from_s[rows], until_s[rows], day.time_s[rows], day.code[rows], needed_bytes=needed_bytes
            )
        return killed_s

    def _first_short_s(
        self,
        devices: Indices,
        from_s: Floats,
        until_s: Floats,
        change_s: Floats,
        code: npt.NDArray[np.uint8],
        *,
        needed_bytes: int,
    ) -> Floats:
        """As ``killed_s``: memory gets less only where a pressure, a use, or the turn of an app begins."""
        start_s, end_s, ratio = pressures(self._seed, devices, from_s, until_s)
        turn = np.floor(from_s / APP_SLOT_S)
        turns = int((np.floor(until_s / APP_SLOT_S) - turn).max(initial=0.0))
        turn_s = (turn[:, np.newaxis] + np.arange(1, turns + 1)) * APP_SLOT_S
        moment_s = np.concatenate([from_s[:, np.newaxis], start_s, turn_s, change_s], axis=1)
        within = (moment_s >= from_s[:, np.newaxis]) & (moment_s < until_s[:, np.newaxis])
        moment_s = np.where(within, moment_s, from_s[:, np.newaxis])
        after = moment_s[:, :, np.newaxis]
        pressed = (start_s[:, np.newaxis, :] <= after) & (after < end_s[:, np.newaxis, :])
        most = np.where(pressed, ratio[:, np.newaxis, :], 0.0).max(axis=2, initial=0.0)
        changes = (change_s[:, np.newaxis, :] <= after).sum(axis=2)
        in_use = (np.take_along_axis(code, changes, axis=1) & IDLE) == 0
        short = runs_short(needed_bytes, self._left(devices[:, np.newaxis], moment_s, most, in_use))
        first_s: Floats = np.where(short, moment_s, np.inf).min(axis=1)
        return first_s

    def _left(self, devices: Indices, at_s: Floats, pressed: Floats, in_use: Bools) -> Floats:
        """What is left of the typical under a pressure and an app in front; shapes that broadcast together."""
        left = self._typical_bytes[devices] * (1.0 - pressed)
        users = np.nonzero(in_use)
        device = np.broadcast_to(devices, left.shape)[users]
        turn = np.floor(at_s[users] / APP_SLOT_S).astype(np.int64)
        score = normal(draw_key(self._seed, "memory.app", device, turn), 1)[..., 0]
        left[users] -= _APP_MEDIAN_BYTES * np.exp(_APP_SPREAD * score)
        return np.maximum(left, 0.0)
