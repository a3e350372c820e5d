"""Which of the devices that wait get a round's assignments: the seam, and the uniform choice.

Rules of a selection:

1. ``choose`` changes nothing and depends on its arguments and on what was learnt alone: asked twice, it says the same.
   Its draws are keyed by (seed, purpose, round, device).
2. It knows what a server knows: who reported what (``Feedback``), and how long it took as the server saw it.
3. ``learn`` is told of every closed round, once, in order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pocketfleet.errors import InputError
from pocketfleet.training.draws import draw_key
from pocketfleet.training.round import Float64s, Int64s

__all__ = ["Feedback", "Selection", "Uniform", "chosen_of"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Feedback:
    """What a server saw of the devices of a round that closed, columns ``[k]``.

    Attributes:
        round: its index.
        device: rising.
        num_examples: examples processed, as reported; 0 without an accepted report.
        loss: root mean square of the losses while training, as reported; nan where unknown: without an accepted
            report, of an update that was not finite, of an abandoned round.
        duration_s: from the assignment to the report; without one, to the round's end.
    """

    round: int
    device: Int64s
    num_examples: Int64s
    loss: Float64s
    duration_s: Float64s


@runtime_checkable
class Selection(Protocol):
    """A way to choose; ``needs_losses``: whether it is of use only where devices train."""

    needs_losses: bool

    def choose(self, candidates: Int64s, *, count: int, round_index: int) -> Int64s:
        """``count`` of more than ``count`` candidates, which are distinct devices in rising order."""
        ...

    def learn(self, feedback: Feedback) -> None:
        """Take note of how a round went."""
        ...

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays for a checkpoint."""
        ...

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what ``state`` returned."""
        ...


class Uniform:
    """Every candidate is as likely as any other, whatever it did before."""

    needs_losses = False

    def __init__(self, *, seed: int, population: int) -> None:
        del population
        self._seed = seed

    def choose(self, candidates: Int64s, *, count: int, round_index: int) -> Int64s:
        """Those with the least numbers drawn for (round, device)."""
        drawn = draw_key(self._seed, "selection", round_index, candidates)
        chosen: Int64s = candidates[np.argsort(drawn, kind="stable")[:count]]
        return chosen

    def learn(self, feedback: Feedback) -> None:
        """Learn nothing."""
        del feedback

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Nothing."""
        return {}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Nothing to restore."""
        del state


def chosen_of(selection: Selection, candidates: Int64s, *, count: int, round_index: int) -> Int64s:
    """The chosen devices, rising: all candidates where they are no more than ``count``.

    Raises:
        InputError: the selection chose other than ``count`` distinct candidates.
    """
    if len(candidates) <= count:
        return candidates
    chosen = np.sort(np.asarray(selection.choose(candidates, count=count, round_index=round_index)))
    if len(np.unique(chosen)) != count or len(chosen) != count or not np.isin(chosen, candidates).all():
        raise InputError(
            f"rounds.selection {type(selection).__name__} must choose {count} distinct devices of the "
            f"{len(candidates)} candidates, got {len(chosen)}: {chosen[:10].tolist()}"
        )
    return chosen.astype(np.int64)
