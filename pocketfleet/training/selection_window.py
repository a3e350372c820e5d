"""The devices that wait while a round's selection window is open, and those of them that were chosen.

Without a length there is no window: nobody waits, and no column is kept.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketfleet.training.round import Bools, Int64s
from pocketfleet.training.selection import Selection, chosen_of

__all__ = ["SelectionWindow"]


class SelectionWindow:
    """One round's window at a time; see rules 13 and 14 of ``coordinator``.

    Attributes:
        is_open: whether this round still has its choice before it.
        ends_s: when the choice is made; inf while nobody waits.
        reserved: how many were chosen and have not come for their assignments yet.
    """

    def __init__(self, *, length_s: float, population: int, selection: Selection | None) -> None:
        if length_s > 0.0 and selection is None:
            raise ValueError(f"plan.selection_window_s is {length_s}, which needs a selection to choose by")
        self._length_s, self._selection = length_s, selection
        self._waits: Bools = np.zeros(population if length_s else 0, np.bool_)
        self._chosen = self._waits.copy()
        self.reopen()

    def reopen(self) -> None:
        """A new round begins; what is left of the last one's is forgotten."""
        self.is_open = self._length_s > 0.0
        self.ends_s = math.inf
        self.reserved = 0
        self._waits[:] = False
        self._chosen[:] = False

    def begin(self, now_s: float) -> None:
        """A device comes at ``now_s``: the first one sets the end."""
        if self.ends_s == math.inf:
            self.ends_s = now_s + self._length_s

    def hold(self, device: Int64s) -> None:
        """Devices wait for the choice."""
        self._waits[device] = True

    def leave(self, device: Int64s) -> None:
        """Devices wait no longer, or do not come for what was reserved for them."""
        if self._length_s:
            self._waits[device] = False
            self.collect(device)

    def choose(self, *, count: int, round_index: int) -> bool:
        """Reserve ``count`` assignments at most for those that wait; False: nobody does, and the window is as new."""
        candidates = np.flatnonzero(self._waits).astype(np.int64)
        self.ends_s = math.inf
        if len(candidates) == 0 or self._selection is None:
            return False
        self._chosen[chosen_of(self._selection, candidates, count=count, round_index=round_index)] = True
        self.reserved = int(self._chosen.sum())
        self.is_open = False
        return True

    def is_chosen(self, device: Int64s) -> Bools:
        """For whom of ``[n]`` devices an assignment is reserved."""
        return self._chosen[device] if self.reserved else np.zeros(len(device), np.bool_)

    def collect(self, device: Int64s) -> None:
        """What was reserved for these is so no longer."""
        self._chosen[device] = False
        self.reserved = int(self._chosen.sum()) if self.reserved else 0

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays for a checkpoint."""
        return {
            "window_open": np.array(self.is_open),
            "window_ends_s": np.array(self.ends_s),
            "waiting": np.flatnonzero(self._waits).astype(np.int64),
            "chosen": np.flatnonzero(self._chosen).astype(np.int64),
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what ``state`` returned."""
        self.is_open, self.ends_s = state["window_open"].item(), state["window_ends_s"].item()
        self._waits[state["waiting"]] = True
        self._chosen[state["chosen"]] = True
        self.reserved = len(state["chosen"])
