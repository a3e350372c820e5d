"""Convolutions under max-pooling: LeNet-5 (LeCun et al. 1998) with ReLU and max-pooling in place of its own."""

from collections import OrderedDict

from torch import nn

from .family import Batch, Family, class_loss, integers, normals

__all__ = ["LENET"]


def _model() -> nn.Module:
    body = nn.Sequential(
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
    )
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(84, 10)))


def _batch(count: int) -> Batch:
    return normals(count, 1, 28, 28), integers(count, below=10)


LENET = Family(
    name="lenet",
    what="LeNet-5, 28 x 28: 5 x 5 convolutions, ReLU, max-pooling, dense layers",
    make_model=_model,
    make_batch=_batch,
    loss=class_loss,
)
