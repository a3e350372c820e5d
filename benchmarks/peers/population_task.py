"""pocketfleet's view of a workload: a task whose users are the workload's devices (``partition.kind = "natural"``)."""

from pathlib import Path

import torch
from learner import losses, make_model
from torch import nn
from workload import Workload

from pocketfleet.training.examples import Examples

__all__ = ["make_task"]


class PopulationTask:
    """The model, the loss and the examples of a workload on disk."""

    def __init__(self, folder: Path) -> None:
        self._workload = Workload.load(folder)
        self.name = self._workload.name

    def make_model(self) -> nn.Module:
        """The model with the workload's initial weights."""
        model = make_model(self._workload.model)
        model.load_state_dict(self._workload.initial_weights())
        return model

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """One loss an example, ``[batch]``."""
        return losses(self._workload.model, output, target)

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        """Squared error, or 1 where the likeliest class is the right one; ``[batch]``."""
        if self._workload.model == "mlp":
            return {"squared_error": (output - target).square().mean(dim=1)}
        return {"accuracy": (output.argmax(dim=1) == target).to(torch.float32)}

    def train_examples(self) -> Examples:
        """The first device's, for the export's sake."""
        return self.device_examples(0)

    def test_examples(self) -> Examples:
        """What no device holds."""
        return Examples(*self._workload.test())

    def device_examples(self, device: int) -> Examples:
        """One device's, those that it holds out among them."""
        workload = self._workload
        return Examples(torch.from_numpy(workload.x[device]), torch.from_numpy(workload.y[device]))


def make_task(*, folder: str) -> PopulationTask:
    """The task of the workload in ``folder``."""
    return PopulationTask(Path(folder))
