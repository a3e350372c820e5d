"""From a plan to its coordinator: of synchronous rounds, or of a buffer."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from pocketfleet.training.buffered_coordinator import BufferedCoordinator
from pocketfleet.training.coordinator import Coordinator
from pocketfleet.training.round import BufferedPlan, RoundPlan
from pocketfleet.training.selection import Selection

__all__ = ["make_coordinator", "restore_coordinator"]


def make_coordinator(
    plan: RoundPlan | BufferedPlan, *, population: int, selection: Selection | None = None
) -> Coordinator | BufferedCoordinator:
    """One to which nothing has happened; ``selection`` chooses at the end of a round's window, where it has one."""
    if isinstance(plan, RoundPlan):
        return Coordinator(plan, population=population, selection=selection)
    return BufferedCoordinator(plan, population=population)


def restore_coordinator(
    plan: RoundPlan | BufferedPlan, state: Mapping[str, npt.NDArray[Any]], *, selection: Selection | None = None
) -> Coordinator | BufferedCoordinator:
    """The one that ``state`` was taken from; see ``Coordinator.restore``."""
    if isinstance(plan, RoundPlan):
        return Coordinator.restore(plan, state, selection=selection)
    return BufferedCoordinator.restore(plan, state)
