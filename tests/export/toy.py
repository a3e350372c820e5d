"""Tasks small enough to export in seconds, and one whose exported loss is wrong."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.examples import Examples
from pocketfleet.training.task import Task
from pocketfleet.training.weights import Tensors


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal values, ``float32``."""
    values = normal(draw_key(seed, "toy"), int(torch.Size(shape).numel()))
    return torch.from_numpy(values).to(torch.float32).reshape(shape)


class Toy:
    """Four classes over 24 drawn examples of a given shape."""

    name = "toy"

    def __init__(self, make_model: Callable[[], nn.Module], *shape: int) -> None:
        self._make_model = make_model
        self._examples = Examples(drawn(24, *shape), torch.arange(24) % 4)

    def make_model(self) -> nn.Module:
        return self._make_model()

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(output, target, reduction="none")

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Tensors:
        return {"accuracy": (output.argmax(dim=1) == target).to(torch.float32)}

    def train_examples(self) -> Examples:
        return self._examples

    def test_examples(self) -> Examples:
        return self._examples


def dense_toy() -> Toy:
    """One dense layer, 3 to 4."""
    return Toy(lambda: nn.Sequential(nn.Linear(3, 4)), 3)


def pooled_toy() -> Toy:
    """A convolution under a max-pool: the program whose stock gradient is wrong on ExecuTorch."""
    return Toy(
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 4)), 1, 6, 6
    )


def normalised_toy() -> Toy:
    """Batch normalisation, an average pool, and a strided convolution in groups."""
    return Toy(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2),
            nn.Flatten(),
            nn.Linear(16, 4),
        ),
        2,
        8,
        8,
    )


class AlteredLoss:
    """A task whose loss is one constant away from the true one: exported, it makes programs that train wrongly."""

    def __init__(self, task: Task, *, factor: float = 1.01) -> None:
        self._task, self._factor = task, factor
        self.name = task.name
        self.make_model, self.metrics = task.make_model, task.metrics
        self.train_examples, self.test_examples = task.train_examples, task.test_examples

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self._task.loss(output, target) * self._factor
