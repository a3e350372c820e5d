"""For how long each device has been used by a time: the screen's seconds since virtual time 0.

Rules:

1. A device is used while its day says that it is not idle.
2. Seconds are added up day by day of the virtual clock, and over the last day piece by piece, always from midnight: the
   sum is a function of (device, time) alone, to the last bit, whenever else somebody asked.
3. What was added up to the last midnight is kept, and only speeds up later questions. A question about an earlier day
   starts from time 0.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.day_changes import IDLE

if TYPE_CHECKING:
    from pocketfleet.device_sim.availability import Availability

__all__ = ["ScreenUse"]

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

_DAY_S = 86_400.0


class ScreenUse:
    """Seconds of use of ``devices`` devices, each lazily brought forward to a midnight of its own."""

    def __init__(self, day: "Availability", *, devices: int) -> None:
        self._day = day
        self._days = np.zeros(devices, dtype=np.int32)  # whole days that were added up
        self._use_s = np.zeros(devices)  # over these

    def seconds(self, device: Int64s, at_s: Floats) -> Floats:
        """Seconds of use from time 0 to ``at_s``; both ``[n]``, a device may come more than once."""
        today = np.floor(at_s / _DAY_S).astype(np.int32)
        back = self._days[device] > today
        reached, use_s = np.where(back, 0, self._days[device]), np.where(back, 0.0, self._use_s[device])
        left = np.flatnonzero(reached < today)
        while len(left):
            midnight_s = _midnight_s(reached[left])
            use_s[left] += self._between(device[left], midnight_s, midnight_s + _DAY_S)
            reached[left] += 1
            left = left[reached[left] < today[left]]
        self._days[device[~back]], self._use_s[device[~back]] = reached[~back], use_s[~back]
        return use_s + self._between(device, _midnight_s(today), at_s)

    def _between(self, device: Int64s, from_s: Floats, until_s: Floats) -> Floats:
        changes = self._day.changes(device, from_s, until_s)
        start_s, end_s = changes.pieces()
        use_s = np.zeros(len(device))
        # Column after column: how many there are depends on who else is asked about, and must not change a sum's bits.
        for column, code in enumerate(changes.code.T):
            use_s += np.where(code & IDLE, 0.0, (end_s - start_s)[:, column])
        return use_s

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """A copy of the columns, for a checkpoint."""
        return {"days": self._days.copy(), "use_s": self._use_s.copy()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what ``state`` returned."""
        self._days, self._use_s = state["days"].copy(), state["use_s"].copy()


def _midnight_s(days: npt.NDArray[np.int32]) -> Floats:
    midnight_s: Floats = days.astype(np.float64) * np.float64(_DAY_S)
    return midnight_s
