"""Inverted residuals with linear bottlenecks: MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, section 3)."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from .family import Batch, Family, class_loss, integers, normals

__all__ = ["MOBILENET_BATCHNORM", "MOBILENET_GROUPNORM", "MOBILENET_V2_224"]

# Of so many channels.
Norm = Callable[[int], nn.Module]
# Expansion, channels, blocks, stride of the first block: a row of the paper's table 2.
Stage = tuple[int, int, int, int]

_SMALL: tuple[Stage, ...] = ((1, 8, 1, 1), (4, 12, 2, 2), (4, 16, 2, 2))
_PAPER: tuple[Stage, ...] = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _convolved(norm: Norm, channels_in: int, channels_out: int, *, kernel: int, stride: int, groups: int) -> nn.Module:
    """A convolution, its normalisation and ReLU6."""
    convolution = nn.Conv2d(
        channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(convolution, norm(channels_out), nn.ReLU6())


class _InvertedResidual(nn.Module):
    """Expand, filter each channel by itself, project without an activation; add the input where shapes allow."""

    def __init__(self, norm: Norm, channels_in: int, channels_out: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        expand = [_convolved(norm, channels_in, wide, kernel=1, stride=1, groups=1)] if expansion > 1 else []
        self.block = nn.Sequential(
            *expand,
            _convolved(norm, wide, wide, kernel=3, stride=stride, groups=wide),
            nn.Conv2d(wide, channels_out, 1, bias=False),
            norm(channels_out),
        )
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.block(x)
        return x + y if self.residual else y


class _MobileNet(nn.Module):
    def __init__(self, norm: Norm, stages: Sequence[Stage], *, stem: int, last: int, classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_convolved(norm, 3, stem, kernel=3, stride=2, groups=1)]
        channels = stem
        for expansion, width, count, first_stride in stages:
            for index in range(count):
                stride = first_stride if index == 0 else 1
                blocks.append(_InvertedResidual(norm, channels, width, expansion=expansion, stride=stride))
                channels = width
        blocks.append(_convolved(norm, channels, last, kernel=1, stride=1, groups=1))
        self.body = nn.Sequential(*blocks)
        self.head = nn.Linear(last, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.body(x).mean(dim=(2, 3))
        scores: torch.Tensor = self.head(pooled)
        return scores


def _small(norm: Norm) -> nn.Module:
    return _MobileNet(norm, _SMALL, stem=8, last=64, classes=10)


def _small_batch(count: int) -> Batch:
    return normals(count, 3, 32, 32), integers(count, below=10)


def _real_batch(count: int) -> Batch:
    return normals(count, 3, 224, 224), integers(count, below=1000)


MOBILENET_BATCHNORM = Family(
    name="mobilenet_batchnorm",
    what="MobileNetV2's blocks, small, 32 x 32: depthwise convolutions, strides, residuals, ReLU6, BatchNorm",
    make_model=partial(_small, nn.BatchNorm2d),
    make_batch=_small_batch,
    loss=class_loss,
)
MOBILENET_GROUPNORM = Family(
    name="mobilenet_groupnorm",
    what="the same with GroupNorm, which needs no statistics of a batch",
    make_model=partial(_small, partial(nn.GroupNorm, 4)),
    make_batch=_small_batch,
    loss=class_loss,
)
MOBILENET_V2_224 = Family(
    name="mobilenet_v2_224",
    what="MobileNetV2 at width 1.0: 3.5 million parameters, 224 x 224, 1000 classes, BatchNorm",
    make_model=lambda: _MobileNet(nn.BatchNorm2d, _PAPER, stem=32, last=1280, classes=1000),
    make_batch=_real_batch,
    loss=class_loss,
    batch_size=8,
    slow=True,
)
