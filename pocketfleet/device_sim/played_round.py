"""How a synchronous round went, once it has been played to its end."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.flight import Flights
from pocketfleet.device_sim.look import Look

__all__ = ["PlayedRound"]

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlayedRound:
    """How a round went.

    Attributes:
        flights: attempts that started, in order of their starts.
        turned_away: devices that may train but found no free slot, ``[n]``, and when they came; rising.
        closes_s: when the round closes; infinite if not before the horizon.
        looks: how many looks there were.
        held: those that checked in during a selection window, in order of time.
        left: those of them that were gone at its end.
        candidates: those that were there at the end of the window that chose.
        refused: those that were not admitted, in order of time.
    """

    flights: Flights
    turned_away: Int64s
    turned_away_s: Floats
    closes_s: float
    looks: int
    held: Look
    left: Look
    candidates: int
    refused: Look
