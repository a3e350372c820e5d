"""Dense layers only."""

from collections import OrderedDict

from torch import nn

from .family import Batch, Family, class_loss, integers, normals

__all__ = ["MLP"]


def _model() -> nn.Module:
    body = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.Tanh())
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(32, 4)))


def _batch(count: int) -> Batch:
    return normals(count, 16), integers(count, below=4)


MLP = Family(
    name="mlp",
    what="three dense layers, ReLU and tanh",
    make_model=_model,
    make_batch=_batch,
    loss=class_loss,
    batch_size=8,
)
