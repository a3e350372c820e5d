"""Residual blocks of two 3 x 3 convolutions (He et al. 2016, arXiv:1512.03385, section 4.2), with GroupNorm."""

import torch
from torch import nn

from .family import Batch, Family, class_loss, integers, normals

__all__ = ["RESNET8_GROUPNORM"]


def _convolved(channels_in: int, channels_out: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(4, channels_out))


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, *, stride: int) -> None:
        super().__init__()
        self.first = _convolved(channels_in, channels_out, stride=stride)
        self.second = _convolved(channels_out, channels_out)
        same = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if same else _convolved(channels_in, channels_out, kernel=1, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


class _ResNet8(nn.Module):
    """A stem, three blocks of two convolutions, a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _convolved(3, 8)
        self.blocks = nn.Sequential(_Block(8, 8, stride=1), _Block(8, 16, stride=2), _Block(16, 32, stride=2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.pool(self.blocks(torch.relu(self.stem(x)))).flatten(1)
        scores: torch.Tensor = self.head(features)
        return scores


def _batch(count: int) -> Batch:
    return normals(count, 3, 16, 16), integers(count, below=10)


RESNET8_GROUPNORM = Family(
    name="resnet8_groupnorm",
    what="ResNet-8, 16 x 16: residual blocks of 3 x 3 convolutions, GroupNorm, global pooling",
    make_model=_ResNet8,
    make_batch=_batch,
    loss=class_loss,
)
