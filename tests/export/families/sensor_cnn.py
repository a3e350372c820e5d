"""1-D convolutions over windows of a motion sensor."""

from collections import OrderedDict

from torch import nn

from .family import Batch, Family, class_loss, integers, normals

__all__ = ["SENSOR_CNN"]


def _model() -> nn.Module:
    body = nn.Sequential(
        nn.Conv1d(6, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(16, 32, 5, padding=2, stride=2),
        nn.ReLU(),
        nn.AvgPool1d(2),
        nn.Flatten(),
    )
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(256, 6)))


def _batch(count: int) -> Batch:
    return normals(count, 6, 64), integers(count, below=6)


SENSOR_CNN = Family(
    name="sensor_cnn",
    what="1-D convolutions over windows of 64 samples of six channels, max- and average-pooling",
    make_model=_model,
    make_batch=_batch,
    loss=class_loss,
    batch_size=8,
)
