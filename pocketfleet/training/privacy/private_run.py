"""A run's privacy as the simulator keeps it: the norm in force, how often each device was in, epsilon so far."""

import numpy as np
import numpy.typing as npt
import torch

from pocketfleet.training.privacy.privacy_plan import PrivacyPlan
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors

__all__ = ["PrivateRun"]

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_PARTICIPATIONS = "participations"


class PrivateRun:
    """Takes the round's means one after the other.

    Args:
        plan: what is done to each, and what that costs.
        devices: how many there are.
    """

    def __init__(self, plan: PrivacyPlan, *, devices: int) -> None:
        self._mean = plan.mean
        self._accountant = plan.accountant
        self._state = self._mean.init()
        self._participations: Int64s = np.zeros(devices, np.int64)
        self._models = 0
        self._clip_norm = self.max_norm

    @property
    def max_norm(self) -> float:
        """To which the next round's updates are clipped."""
        return self._mean.norm_of(self._state)

    def take(self, mean: Update, *, device: Int64s, norms: Float64s, finite: Bools, version: int) -> Update:
        """A round's mean with noise; see ``PrivateMean.step``.

        Args:
            mean: of the clipped updates that are finite.
            device: ``[n]`` of the accepted reports.
            norms: ``[n]``.
            finite: ``[n]``.
            version: of the model that is made.
        """
        self._clip_norm = self.max_norm
        private, self._state = self._mean.step(mean, norms=norms, finite=finite, version=version, state=self._state)
        self._participations[device] += 1
        self._models += 1
        return private

    @property
    def figures(self) -> dict[str, float]:
        """Of a round's row: ``epsilon`` so far, and ``clip_norm``, to which the latest updates were clipped."""
        return {"epsilon": self._epsilon(), "clip_norm": self._clip_norm}

    @property
    def participations(self) -> int:
        """Of the device that is in most models."""
        return int(self._participations.max(initial=0))

    def _epsilon(self) -> float:
        return self._accountant.epsilon(rounds=self._models, participations=self.participations)

    def state(self) -> Tensors:
        """Tensors for a checkpoint."""
        return self._state | {
            _PARTICIPATIONS: torch.from_numpy(self._participations.copy()),
            "models": torch.tensor(self._models),
            "clip_norm": torch.tensor(self._clip_norm, dtype=torch.float64),
        }

    def restore(self, state: Tensors) -> None:
        """Continue from what ``state`` returned."""
        self._state = {name: state[name] for name in self._state}
        self._participations = state[_PARTICIPATIONS].numpy().copy()
        self._models, self._clip_norm = int(state["models"]), float(state["clip_norm"])
