"""What a simulator asks of a policy of rounds, and what it gets of a round that closed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from pocketfleet.device_sim.flight import Flights
from pocketfleet.device_sim.secure_stages import Group
from pocketfleet.device_sim.stage_clock import Watch
from pocketfleet.training.round import Float64s, Int64s, RoundClosed

__all__ = ["ClosedRound", "Rounds", "of_prefix"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClosedRound:
    """A round that made a model version, or was abandoned.

    Attributes:
        closing: the coordinator's word on it.
        accepted: attempts whose reports it accepted, in rising order of device.
        looks: how often devices looked whether they may train.
        turned_away: check-ins that found no free slot, or were not chosen.
        held: check-ins that waited for a selection window's end.
        candidates: devices that were there to be chosen from.
        refused: check-ins of devices that are never to come again: the population is full, or they are in as many
            models as one may be.
        group: how those whose reports were accepted fared on the way to a sum, under secure aggregation; ``accepted``
            are then those in the sum.
    """

    closing: RoundClosed
    accepted: Flights
    looks: int
    turned_away: int
    held: int = 0
    candidates: int = 0
    refused: int = 0
    group: Group | None = None


class Rounds(Protocol):
    """Rounds of one policy on the virtual clock: synchronous, buffered, or as they were recorded."""

    under_way: Flights

    @property
    def model_version(self) -> int:
        """The newest version that was published."""
        ...

    @property
    def num_spent(self) -> int:
        """How many devices are in as many models as one may be; 0 where that is not bounded."""
        return 0

    @property
    def exhausted(self) -> bool:
        """Whether so many devices are, that no further version can be made."""
        return False

    def watch(self, watch: Watch) -> None:
        """Have the coordinator's time counted apart; after ``restore``."""
        ...

    def play(self, now_s: float, *, horizon_s: float) -> tuple[float, ClosedRound | None]:
        """Go on from ``now_s`` until a round closes: when it did, and it; at the horizon, that and nothing."""
        ...

    def learnt(self, closed: ClosedRound, device: Int64s, loss: Float64s) -> None:
        """Of the round that closed last: the losses ``[k]`` that devices ``[k]`` reported, finite ones."""
        ...

    def versions_in_use(self) -> set[int]:
        """Older versions that an attempt still trains from, or has trained from without having been used."""
        ...

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays for a checkpoint."""
        ...

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what ``state`` returned.

        Raises:
            ValueError: the plan is not the one that the state was saved under.
        """
        ...


def of_prefix(prefix: str, state: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The arrays whose names begin with ``prefix``, by the rest of their names."""
    return {name.removeprefix(prefix): column for name, column in state.items() if name.startswith(prefix)}
