"""An encoder and a decoder of images: strided, dilated and grouped convolutions down, transposed ones up."""

from collections import OrderedDict

import torch
from torch import nn

from .family import Batch, Family, normals

__all__ = ["TRANSPOSED_CNN"]


def _model() -> nn.Module:
    body = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.LeakyReLU(),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2),
        nn.LeakyReLU(),
        nn.ConvTranspose2d(8, 8, 3, padding=1, groups=4),
        nn.LeakyReLU(),
        nn.ConvTranspose2d(8, 4, 3, padding=2, dilation=2),
        nn.LeakyReLU(),
    )
    head = nn.ConvTranspose2d(4, 1, 3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(OrderedDict(body=body, head=head))


def _batch(count: int) -> Batch:
    return normals(count, 1, 12, 12), normals(count, 1, 12, 12, purpose="family_y")


def _loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).square().mean(dim=(1, 2, 3))


TRANSPOSED_CNN = Family(
    name="transposed_cnn",
    what="an encoder and a decoder, 12 x 12: dilated, grouped and transposed convolutions, squared error",
    make_model=_model,
    make_batch=_batch,
    loss=_loss,
)
