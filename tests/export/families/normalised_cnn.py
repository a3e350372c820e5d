"""A convolutional network that normalises by the batch's statistics while it trains."""

from collections import OrderedDict

from torch import nn

from .family import Batch, Family, class_loss, integers, normals

__all__ = ["CNN_BATCHNORM"]


def _stage(channels_in: int, channels_out: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU(), nn.AvgPool2d(2)]


def _model() -> nn.Module:
    body = nn.Sequential(*_stage(3, 8), *_stage(8, 16), nn.Flatten())
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(256, 10)))


def _batch(count: int) -> Batch:
    return normals(count, 3, 16, 16), integers(count, below=10)


CNN_BATCHNORM = Family(
    name="cnn_batchnorm",
    what="3 x 3 convolutions, BatchNorm with its running statistics, average-pooling, 16 x 16",
    make_model=_model,
    make_batch=_batch,
    loss=class_loss,
)
