import math

import pytest
import torch
from torch import nn

from pocketfleet.training.feature_scaling import FeatureScaling
from pocketfleet.training.objective import CLASSES, NUMBERS, perceptron


def test_classes() -> None:
    output = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    target = torch.tensor([1, 0])
    # Equal scores: log 2. Scores 2 and 0: log(e^2 + 1) - 2.
    assert CLASSES.loss(output, target).tolist() == pytest.approx([math.log(2), math.log(math.e**2 + 1) - 2], rel=1e-6)
    assert CLASSES.metrics(output, target)["accuracy"].tolist() == [0.0, 1.0]


def test_classes_at_every_position_are_an_examples_mean() -> None:
    output = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]])
    target = torch.tensor([[1, 0]])
    mean = (math.log(2) + math.log(math.e**2 + 1) - 2) / 2
    assert CLASSES.loss(output, target).tolist() == pytest.approx([mean], rel=1e-6)
    assert CLASSES.metrics(output, target)["accuracy"].tolist() == [0.5]


def test_numbers() -> None:
    output, target = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[3.0, 2.0], [1.0, 1.0]])
    assert NUMBERS.loss(output, target).tolist() == [2.0, 1.0]
    metrics = NUMBERS.metrics(output, target)
    assert {name: value.tolist() for name, value in metrics.items()} == {"mse": [2.0, 1.0], "mae": [1.0, 1.0]}


def test_a_perceptrons_layers() -> None:
    # 13 * 64 + 64, 64 * 32 + 32, 32 + 1.
    assert sum(value.numel() for value in perceptron([13, 64, 32, 1]).parameters()) == 896 + 2080 + 33
    assert [type(layer) for layer in perceptron([784, 10])] == [nn.Linear]
    assert [type(layer) for layer in perceptron([2, 3, 1], scaled=True)] == [
        FeatureScaling,
        nn.Linear,
        nn.ReLU,
        nn.Linear,
    ]
