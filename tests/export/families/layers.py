"""Single layers, each behind a small trainable one, so that the layer's own gradient is part of what is compared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .family import Batch, integers, normals

__all__ = ["LAYERS", "Layer", "layer_batch", "layer_loss"]


@dataclass(frozen=True, slots=True)
class Layer:
    """A model around one layer, and the shape of an example; ``below`` is set where examples are integers."""

    make_model: Callable[[], nn.Module]
    shape: tuple[int, ...]
    below: int | None = None


def layer_batch(layer: Layer, count: int) -> Batch:
    """So many examples; the target is one number each."""
    shape = (count, *layer.shape)
    x = normals(*shape) if layer.below is None else integers(*shape, below=layer.below)
    return x, normals(count, purpose="layer_y")


def layer_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of an example's outputs, whatever their shape, from its number."""
    return (output.flatten(1) - target.unsqueeze(1)).square().mean(dim=1)


class _First(nn.Module):
    """The first output of a layer that returns more, such as a recurrent one."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first: torch.Tensor = self.layer(x)[0]
        return first


class _OfItself(nn.Module):
    """A layer of several inputs, each of them ``x``."""

    def __init__(self, layer: nn.Module, *, inputs: int, **keywords: Any) -> None:  # noqa: ANN401 - the layer's own
        super().__init__()
        self.layer, self.inputs, self.keywords = layer, inputs, keywords

    def forward(self, x: torch.Tensor) -> Any:  # noqa: ANN401 - whatever the layer returns
        return self.layer(*[x] * self.inputs, **self.keywords)


class _Unrolled(nn.Module):
    """The last state of a cell that was called at each position."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: torch.Tensor) -> Any:  # noqa: ANN401 - a tensor, or a pair of them
        state = None
        for position in x.unbind(dim=1):
            state = self.cell(position, state)
        return state


def _on_features(make: Callable[[], nn.Module]) -> Layer:
    return Layer(lambda: nn.Sequential(nn.Linear(5, 6), make()), (5,))


def _on_signals(make: Callable[[], nn.Module]) -> Layer:
    return Layer(lambda: nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), make()), (2, 11))


def _on_images(make: Callable[[], nn.Module]) -> Layer:
    return Layer(lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), make()), (2, 7, 9))


def _on_volumes(make: Callable[[], nn.Module]) -> Layer:
    # Behind a linear layer: a 3-D convolution does not export everywhere.
    return Layer(lambda: nn.Sequential(nn.Linear(5, 240), nn.Unflatten(1, (4, 3, 4, 5)), make()), (5,))


def _on_sequences(make: Callable[[], nn.Module]) -> Layer:
    return Layer(lambda: nn.Sequential(nn.Linear(5, 8), make()), (6, 5))


_ACTIVATIONS = {
    "ReLU": _on_features(nn.ReLU),
    "ReLU6": _on_features(nn.ReLU6),
    "LeakyReLU": _on_features(nn.LeakyReLU),
    "ELU": _on_features(nn.ELU),
    "SELU": _on_features(nn.SELU),
    "CELU": _on_features(lambda: nn.CELU(0.7)),
    "SiLU": _on_features(nn.SiLU),
    "GELU": _on_features(nn.GELU),
    "GELU, tanh": _on_features(lambda: nn.GELU(approximate="tanh")),
    "Mish": _on_features(nn.Mish),
    "Hardswish": _on_features(nn.Hardswish),
    "Hardsigmoid": _on_features(nn.Hardsigmoid),
    "Hardtanh": _on_features(nn.Hardtanh),
    "Hardshrink": _on_features(lambda: nn.Hardshrink(0.2)),
    "Softshrink": _on_features(lambda: nn.Softshrink(0.2)),
    "Softplus": _on_features(nn.Softplus),
    "Sigmoid": _on_features(nn.Sigmoid),
    "LogSigmoid": _on_features(nn.LogSigmoid),
    "Tanh": _on_features(nn.Tanh),
    "Tanhshrink": _on_features(nn.Tanhshrink),
    "Softsign": _on_features(nn.Softsign),
    "PReLU": _on_features(nn.PReLU),
    "PReLU, a weight a channel": _on_images(lambda: nn.PReLU(4)),
    "Softmax": _on_features(lambda: nn.Softmax(dim=1)),
    "LogSoftmax": _on_features(lambda: nn.LogSoftmax(dim=1)),
    "Softmax2d": _on_images(nn.Softmax2d),
    "GLU": _on_features(nn.GLU),
}
_POOLS = {
    "MaxPool1d": _on_signals(lambda: nn.MaxPool1d(2)),
    "MaxPool1d, padded, overlapping": _on_signals(lambda: nn.MaxPool1d(3, stride=2, padding=1)),
    "MaxPool1d, ceil": _on_signals(lambda: nn.MaxPool1d(3, ceil_mode=True)),
    "Dropout2d": _on_images(lambda: nn.Dropout2d(0.3)),
    "AlphaDropout": _on_features(lambda: nn.AlphaDropout(0.3)),
    "MaxPool2d": _on_images(lambda: nn.MaxPool2d(2)),
    "MaxPool2d, padded, overlapping": _on_images(lambda: nn.MaxPool2d(3, stride=2, padding=1)),
    "MaxPool2d, ceil": _on_images(lambda: nn.MaxPool2d((2, 3), ceil_mode=True)),
    "MaxPool2d, dilated": _on_images(lambda: nn.MaxPool2d(2, stride=1, dilation=2)),
    "MaxPool3d": _on_volumes(lambda: nn.MaxPool3d(2)),
    "AvgPool1d": _on_signals(lambda: nn.AvgPool1d(2)),
    "AvgPool1d, padded, overlapping": _on_signals(lambda: nn.AvgPool1d(3, stride=2, padding=1)),
    "AvgPool1d, ceil": _on_signals(lambda: nn.AvgPool1d(3, ceil_mode=True)),
    "AvgPool2d": _on_images(lambda: nn.AvgPool2d(2)),
    "AvgPool2d, padded, overlapping": _on_images(lambda: nn.AvgPool2d(3, stride=2, padding=1)),
    "AvgPool2d, padding uncounted": _on_images(lambda: nn.AvgPool2d(3, padding=1, count_include_pad=False)),
    "AvgPool2d, ceil": _on_images(lambda: nn.AvgPool2d(2, ceil_mode=True)),
    "AvgPool3d": _on_volumes(lambda: nn.AvgPool3d(2)),
    "AdaptiveAvgPool1d": _on_signals(lambda: nn.AdaptiveAvgPool1d(1)),
    "AdaptiveAvgPool2d, to 1": _on_images(lambda: nn.AdaptiveAvgPool2d(1)),
    "AdaptiveAvgPool2d, uneven": _on_images(lambda: nn.AdaptiveAvgPool2d((3, 4))),
    "AdaptiveMaxPool1d": _on_signals(lambda: nn.AdaptiveMaxPool1d(3)),
    "AdaptiveMaxPool2d": _on_images(lambda: nn.AdaptiveMaxPool2d((3, 4))),
    "LPPool2d": _on_images(lambda: nn.Sequential(nn.Softplus(), nn.LPPool2d(2, 2))),
}
_RESIZED = {
    "Upsample, nearest": _on_images(lambda: nn.Upsample(scale_factor=2)),
    "Upsample, nearest, 1-D": _on_signals(lambda: nn.Upsample(scale_factor=2)),
    "Upsample, to a size": _on_images(lambda: nn.Upsample(size=(10, 12))),
    "Upsample, bilinear": _on_images(lambda: nn.Upsample(scale_factor=2, mode="bilinear")),
    "Upsample, bilinear, aligned": _on_images(lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)),
    "PixelShuffle": _on_images(lambda: nn.PixelShuffle(2)),
    "PixelUnshuffle": _on_images(lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.PixelUnshuffle(2))),
    "ZeroPad2d": _on_images(lambda: nn.ZeroPad2d((1, 2, 0, 3))),
    "ConstantPad1d": _on_signals(lambda: nn.ConstantPad1d(2, 0.5)),
    "ReflectionPad1d": _on_signals(lambda: nn.ReflectionPad1d((1, 2))),
    "ReflectionPad2d": _on_images(lambda: nn.ReflectionPad2d((1, 2, 2, 1))),
    "ReplicationPad2d": _on_images(lambda: nn.ReplicationPad2d((1, 2, 2, 1))),
    "CircularPad2d": _on_images(lambda: nn.CircularPad2d((1, 2, 2, 1))),
    "Flatten": _on_images(nn.Flatten),
    "Unflatten": _on_features(lambda: nn.Unflatten(1, (2, 3))),
}
_NORMS = {
    "BatchNorm1d": _on_signals(lambda: nn.BatchNorm1d(4)),
    "BatchNorm1d, features": _on_features(lambda: nn.BatchNorm1d(6)),
    "BatchNorm2d": _on_images(lambda: nn.BatchNorm2d(4)),
    "BatchNorm2d, no statistics": _on_images(lambda: nn.BatchNorm2d(4, track_running_stats=False)),
    "BatchNorm3d": _on_volumes(lambda: nn.BatchNorm3d(4)),
    # What is normalised without weights of its own is as far from any one number whatever went in: a layer must follow.
    "InstanceNorm1d": _on_signals(lambda: nn.Sequential(nn.InstanceNorm1d(4), nn.Conv1d(4, 2, 3))),
    "InstanceNorm2d": _on_images(lambda: nn.InstanceNorm2d(4, affine=True)),
    "GroupNorm": _on_images(lambda: nn.GroupNorm(2, 4)),
    "LayerNorm": _on_sequences(lambda: nn.LayerNorm(8)),
    "RMSNorm": _on_sequences(lambda: nn.RMSNorm(8)),
    "LocalResponseNorm": _on_images(lambda: nn.LocalResponseNorm(2)),
}
_CONVOLUTIONS = {
    "Conv1d, dilated": _on_signals(lambda: nn.Conv1d(4, 4, 3, dilation=2, groups=2)),
    "Conv1d, depthwise": _on_signals(lambda: nn.Conv1d(4, 8, 3, stride=2, groups=4)),
    "Conv2d, padded to the same": _on_images(lambda: nn.Conv2d(4, 3, 3, padding="same")),
    "Conv2d, padded by reflection": _on_images(lambda: nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect")),
    "Conv2d, uneven": _on_images(lambda: nn.Conv2d(4, 4, (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2))),
    "Conv2d, depthwise": _on_images(lambda: nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4)),
    "Conv3d": _on_volumes(lambda: nn.Conv3d(4, 2, 3, stride=2, padding=1)),
    "Conv3d, grouped": _on_volumes(lambda: nn.Conv3d(4, 4, (1, 3, 3), groups=2)),
    "ConvTranspose1d": _on_signals(lambda: nn.ConvTranspose1d(4, 3, 3, stride=2, padding=1, output_padding=1)),
    "ConvTranspose2d": _on_images(lambda: nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1)),
    "ConvTranspose2d, grouped": _on_images(lambda: nn.ConvTranspose2d(4, 6, (3, 2), groups=2)),
    "ConvTranspose2d, dilated": _on_images(lambda: nn.ConvTranspose2d(4, 3, 3, dilation=2)),
    "ConvTranspose3d": _on_volumes(lambda: nn.ConvTranspose3d(4, 2, 2, stride=2)),
}
_LOOKED_UP = {
    "Embedding": Layer(lambda: nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3)), (5,), below=9),
    "Embedding, padding index": Layer(lambda: nn.Embedding(9, 4, padding_idx=0), (5,), below=9),
    "EmbeddingBag, mean": Layer(lambda: nn.EmbeddingBag(9, 4, mode="mean"), (5,), below=9),
    "EmbeddingBag, sum": Layer(lambda: nn.EmbeddingBag(9, 4, mode="sum"), (5,), below=9),
    "EmbeddingBag, max": Layer(lambda: nn.EmbeddingBag(9, 4, mode="max"), (5,), below=9),
}
_SEQUENCES = {
    "RNN": _on_sequences(lambda: _First(nn.RNN(8, 4, batch_first=True))),
    "RNN, ReLU": _on_sequences(lambda: _First(nn.RNN(8, 4, nonlinearity="relu", batch_first=True))),
    "GRU": _on_sequences(lambda: _First(nn.GRU(8, 4, batch_first=True))),
    "GRU, two layers": _on_sequences(lambda: _First(nn.GRU(8, 4, num_layers=2, batch_first=True))),
    "GRU, both directions": _on_sequences(lambda: _First(nn.GRU(8, 4, bidirectional=True, batch_first=True))),
    "LSTM": _on_sequences(lambda: _First(nn.LSTM(8, 4, batch_first=True))),
    "LSTM, two layers, both directions": _on_sequences(
        lambda: _First(nn.LSTM(8, 4, num_layers=2, bidirectional=True, batch_first=True))
    ),
    "LSTM, projected": _on_sequences(lambda: _First(nn.LSTM(8, 4, proj_size=3, batch_first=True))),
    "GRUCell": _on_sequences(lambda: _Unrolled(nn.GRUCell(8, 4))),
    "LSTMCell": _on_sequences(lambda: _First(_Unrolled(nn.LSTMCell(8, 4)))),
    "MultiheadAttention": _on_sequences(
        lambda: _First(_OfItself(nn.MultiheadAttention(8, 2, batch_first=True), inputs=3))
    ),
    "MultiheadAttention, without its weights": _on_sequences(
        lambda: _First(_OfItself(nn.MultiheadAttention(8, 2, batch_first=True), inputs=3, need_weights=False))
    ),
    "TransformerEncoderLayer": _on_sequences(
        lambda: nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, dropout=0.0, batch_first=True)
    ),
    "TransformerDecoderLayer": _on_sequences(
        lambda: _OfItself(nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, batch_first=True), inputs=2)
    ),
}
_PRODUCTS = {
    "Linear, no bias": _on_features(lambda: nn.Linear(6, 3, bias=False)),
    "Bilinear": _on_features(lambda: _OfItself(nn.Bilinear(6, 6, 3), inputs=2)),
    "CosineSimilarity": _on_sequences(lambda: nn.Sequential(nn.Linear(8, 8), _OfItself(_Shifted(), inputs=2))),
}


class _Shifted(nn.Module):
    """The cosine between each position and the one before."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return nn.functional.cosine_similarity(first, second.roll(1, dims=1), dim=2)


LAYERS: dict[str, Layer] = {
    **_ACTIVATIONS,
    **_POOLS,
    **_RESIZED,
    **_NORMS,
    **_CONVOLUTIONS,
    **_LOOKED_UP,
    **_SEQUENCES,
    **_PRODUCTS,
}
