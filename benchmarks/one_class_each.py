"""Ten overlapping classes of points, every device holding a single one: the strongest label skew there is.

Class ``c`` is a normal cloud around a drawn centre; coordinates shrink, so that the problem is ill-conditioned. The
model is a softmax regression: its loss is convex, and what keeps an algorithm from the minimum is the skew alone.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.examples import Examples
from pocketfleet.training.weights import Tensors

__all__ = ["make_task"]

CLASSES, FEATURES = 10, 20
# Of the noise within a class, against centres a distance of sqrt(2 * 20) = 6 apart: classes overlap.
SPREAD = 1.5
# 62 examples a device, of which a fifth is held out: 50 to train on.
EXAMPLES = 62
TESTS = 2000


class OneClassEach:
    """Which class is it; device ``k`` holds class ``k`` modulo 10."""

    name = "one_class_each"

    def make_model(self) -> nn.Module:
        """Softmax regression that begins at zero."""
        model = nn.Linear(FEATURES, CLASSES)
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        return model

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Cross-entropy an example, ``[batch]``."""
        return F.cross_entropy(output, target, reduction="none")

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Tensors:
        """``accuracy``: 1 where the likeliest class is the right one."""
        return {"accuracy": (output.argmax(dim=1) == target).to(torch.float32)}

    def device_examples(self, device: int) -> Examples:
        """62 points of one class."""
        return _points(np.full(EXAMPLES, device % CLASSES), purpose="device", index=device)

    def train_examples(self) -> Examples:
        """One device's of each class."""
        parts = [self.device_examples(device) for device in range(CLASSES)]
        return Examples(torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts]))

    def test_examples(self) -> Examples:
        """As many of each class."""
        return _points(np.arange(TESTS) % CLASSES, purpose="test", index=0)


def _points(labels: np.ndarray, *, purpose: str, index: int) -> Examples:
    centres = normal(draw_key(0, "centres"), CLASSES * FEATURES).reshape(CLASSES, FEATURES)
    noise = normal(draw_key(0, purpose, index), len(labels) * FEATURES).reshape(len(labels), FEATURES)
    # From 2 down to 0.33.
    scale = 2.0 * np.arange(1.0, FEATURES + 1.0) ** -0.6
    x = (centres[labels] + SPREAD * noise) * scale
    return Examples(torch.tensor(x, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64))


def make_task() -> OneClassEach:
    """The task."""
    return OneClassEach()
