"""FedSGD: one gradient a device and round, over all of its examples (McMahan et al. 2017, arXiv:1602.05629, section 2).

It is FedAvg with one epoch of one batch (E = 1, B = all). How many steps and how large the batch is are the
experiment's to settle; see ``assembly``.
"""

from dataclasses import dataclass

from pocketfleet.errors import InputError
from pocketfleet.training.algorithms.fedavg import FedAvg
from pocketfleet.training.train_step import StepSettings

__all__ = ["FedSgd"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FedSgd(FedAvg):
    """With the server's rate at 1, ``w - rate * sum_k n_k / n * gradient_k(w)``."""

    name: str = "fedsgd"

    def step_settings(self, settings: StepSettings) -> StepSettings:
        """Nothing is added.

        Raises:
            InputError: the steps' optimizer has a memory, which a single step never uses.
        """
        if settings.adaptive or settings.momentum:
            raise InputError(
                f"algorithm fedsgd reports a gradient, from one step of plain SGD, got {settings}: leave "
                'training.optimizer at "sgd" and training.momentum at 0, and give the server a momentum or moments '
                "(server.optimizer)"
            )
        return settings
