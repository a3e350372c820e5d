"""The six models of suite v1, written out layer by layer.

A suite's figures compare only while its models stay as they are: what changes a shape or an operator here makes another
suite, which ``bench_suite`` names v2.
"""

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["CHARACTERS", "CharLstm", "CharTransformer", "dense_net", "lenet", "mobile_net", "sensor_net"]

# Printable characters of LEAF's Shakespeare (Caldas et al. 2018, arXiv:1812.01097) rounded up: 80 there.
CHARACTERS = 96


def dense_net() -> nn.Module:
    """13-32-24-16-1 with rectifiers, the shape of the packaged task ``boston``."""
    return nn.Sequential(
        nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 1)
    )


def lenet() -> nn.Module:
    """LeNet-5 (LeCun et al. 1998, figure 2) with max-pooling and rectifiers, as the packaged task ``mnist``."""
    return nn.Sequential(
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
        nn.Linear(84, 10),
    )


def sensor_net() -> nn.Module:
    """Two 1-D convolutions over 128 readings of 9 channels, 6 activities.

    Source of the shapes: Anguita et al. 2013, "A public domain dataset for human activity recognition using
    smartphones" (UCI HAR).
    """
    return nn.Sequential(
        nn.Conv1d(9, 32, 5),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(32, 32, 5),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Flatten(),
        nn.Linear(32 * 29, 64),
        nn.ReLU(),
        nn.Linear(64, 6),
    )


class _InvertedResidual(nn.Module):
    """Widen by 1 x 1, filter each channel by 3 x 3, narrow by 1 x 1.

    Source: Sandler et al. 2018, "MobileNetV2", arXiv:1801.04381, table 1.
    """

    def __init__(self, channels: int, out_channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.residual = stride == 1 and channels == out_channels
        self.layers = nn.Sequential(
            *_normalised(nn.Conv2d(channels, wide, 1, bias=False), wide),
            nn.ReLU6(),
            *_normalised(nn.Conv2d(wide, wide, 3, stride=stride, padding=1, groups=wide, bias=False), wide),
            nn.ReLU6(),
            *_normalised(nn.Conv2d(wide, out_channels, 1, bias=False), out_channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layers(x)
        return x + y if self.residual else y


def _normalised(convolution: nn.Conv2d, channels: int) -> tuple[nn.Module, nn.Module]:
    # Groups of 8 channels. Not batch norm as published: it averages over a phone's few examples, and over nothing at a
    # batch of 1; Hsieh et al. 2020, "The Non-IID Data Quagmire of Decentralized Machine Learning", section 5.
    return convolution, nn.GroupNorm(channels // 8, channels)


def mobile_net() -> nn.Module:
    """MobileNetV2's blocks for 32 x 32 pictures: five of them, expansion 4 after the first, 10 classes."""
    return nn.Sequential(
        *_normalised(nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), 16),
        nn.ReLU6(),
        _InvertedResidual(16, 16, stride=1, expansion=1),
        _InvertedResidual(16, 24, stride=2, expansion=4),
        _InvertedResidual(24, 24, stride=1, expansion=4),
        _InvertedResidual(24, 32, stride=2, expansion=4),
        _InvertedResidual(32, 32, stride=1, expansion=4),
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


class CharLstm(nn.Module):
    """One LSTM layer over embedded characters, then the next character's scores; its cell is written out.

    Source of the cell: Hochreiter and Schmidhuber 1997 with forget gates, as ``torch.nn.LSTM`` computes it.
    """

    def __init__(self, *, context: int = 32, width: int = 8, hidden: int = 64) -> None:
        super().__init__()
        self.context, self.hidden = context, hidden
        self.embedding = nn.Embedding(CHARACTERS, width)
        self.input = nn.Linear(width, 4 * hidden)
        self.recurrent = nn.Linear(hidden, 4 * hidden, bias=False)
        self.output = nn.Linear(hidden, CHARACTERS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Scores ``[batch, CHARACTERS]`` of what follows tokens ``[batch, context]``."""
        gates = self.input(self.embedding(tokens))
        hidden = cell = gates.new_zeros((tokens.shape[0], self.hidden))
        for place in range(self.context):
            now = gates[:, place] + self.recurrent(hidden)
            enter, keep, candidate, leave = now.chunk(4, dim=1)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(enter) * torch.tanh(candidate)
            hidden = torch.sigmoid(leave) * torch.tanh(cell)
        scores: torch.Tensor = self.output(hidden)
        return scores


class _Block(nn.Module):
    """Attention to earlier places, then a feed-forward of four times the width; both normalised first."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads, self.context, self.width = heads, context, width
        self.before_attention, self.before_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries, self.keys, self.values = (nn.Linear(width, width) for _ in range(3))
        self.mix = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        # Added to scores: nothing for earlier places, and so much for later ones that their share is exactly 0.
        self.register_buffer("mask", torch.full((context, context), -1e9).triu(1))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], self.context, self.heads, self.width // self.heads).transpose(1, 2)

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (self._split(layer(x)) for layer in (self.queries, self.keys, self.values))
        scores = q @ k.transpose(2, 3) * (self.width // self.heads) ** -0.5
        mixed = torch.softmax(scores + self.get_buffer("mask"), dim=3) @ v
        joined: torch.Tensor = self.mix(mixed.transpose(1, 2).reshape(x.shape[0], self.context, self.width))
        return joined

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self._attend(self.before_attention(x))
        fed: torch.Tensor = self.feed(self.before_feed(x))
        return x + fed


class CharTransformer(nn.Module):
    """Two blocks of attention over embedded characters and places, then the next character's scores at every place."""

    def __init__(self, *, context: int = 32, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CHARACTERS, width)
        self.places = nn.Parameter(torch.zeros(context, width))
        self.blocks = nn.Sequential(*(_Block(width, heads, context) for _ in range(2)))
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, CHARACTERS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Scores ``[batch, context, CHARACTERS]`` for tokens ``[batch, context]``."""
        scores: torch.Tensor = self.output(self.norm(self.blocks(self.embedding(tokens) + self.places)))
        return scores

    @staticmethod
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Cross-entropy an example, the mean over its places."""
        losses = F.cross_entropy(output.reshape(-1, CHARACTERS), target.reshape(-1), reduction="none")
        return losses.reshape(target.shape).mean(dim=1)
