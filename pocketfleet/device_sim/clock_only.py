"""Rounds without the arithmetic: the clock, the phones and the coordinator run, the model stays as it was."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.device_store import DeviceStore
from pocketfleet.device_sim.flight import Flights
from pocketfleet.device_sim.global_model import Learning
from pocketfleet.device_sim.ledger import Ledger
from pocketfleet.device_sim.secure_stages import Group
from pocketfleet.training.weights import Tensors, Weights, tensors_sha256

__all__ = ["ClockOnly"]


class ClockOnly:
    """Stands where a ``GlobalModel`` does; every event is the same, since none depends on what is learnt."""

    def __init__(self, *, weights: Weights, store: DeviceStore) -> None:
        self.weights = weights
        self.store = store

    @property
    def sha256(self) -> str:
        """Of trainable weights and buffers, as they were at the start."""
        return tensors_sha256(self.weights.trainable | self.weights.buffers)

    def learn(self, accepted: Flights, *, round_index: int, ledger: Ledger, group: Group | None = None) -> Learning:
        """Learn nothing."""
        del accepted, round_index, ledger, group
        return Learning(train_loss=math.nan, non_finite=0)

    def keep(self, versions: set[int]) -> None:
        """There is one version, whatever its number."""
        del versions

    @property
    def figures(self) -> Mapping[str, float]:
        """None: nothing is learnt, and nothing given away."""
        return {}

    def evaluate(self, *, round_index: int) -> dict[str, float]:
        """No metrics."""
        del round_index
        return {}

    def take_updates(self) -> Sequence[Mapping[str, npt.NDArray[np.generic]]]:
        """None."""
        return []

    def state(self) -> Tensors:
        """Nothing that changes."""
        return {}

    def restore(self, state: Tensors) -> None:
        """Nothing to restore."""
        del state
