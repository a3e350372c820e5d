"""Losses over the outputs of a dense layer, each with targets that suit it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from .family import Batch, integers, normals

__all__ = ["LOSSES", "LossCase", "loss_batch", "loss_model"]

_CLASSES, _POSITIONS = 5, 4
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class LossCase:
    """A loss, the targets of so many examples, and whether the model's outputs are sequences."""

    loss: Loss
    targets: Callable[[int], torch.Tensor]
    sequences: bool = False


def loss_model() -> nn.Module:
    """Dense layers from 6 inputs to 5 outputs, of features or of each position."""
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, _CLASSES))


def loss_batch(case: LossCase, count: int) -> Batch:
    """So many examples for a case."""
    x = normals(count, _POSITIONS, 6) if case.sequences else normals(count, 6)
    return x, case.targets(count)


def _numbers(count: int) -> torch.Tensor:
    # As far from the outputs as Huber's bend, on either side.
    return 2 * normals(count, _CLASSES, purpose="loss_y")


def _classes(count: int) -> torch.Tensor:
    return integers(count, below=_CLASSES)


def _tokens(count: int) -> torch.Tensor:
    return integers(count, _POSITIONS, below=_CLASSES)


def _padded_tokens(count: int) -> torch.Tensor:
    """The last position of each sequence is padding."""
    tokens = _tokens(count)
    tokens[:, -1] = -100
    return tokens


def _bits(count: int) -> torch.Tensor:
    return integers(count, _CLASSES, below=2).to(torch.float32)


def _distributions(count: int) -> torch.Tensor:
    return torch.softmax(_numbers(count), dim=1)


def _mean(loss: Callable[..., torch.Tensor], **keywords: object) -> Loss:
    """The mean over all but the first dimension."""
    return lambda output, target: loss(output, target, reduction="none", **keywords).flatten(1).mean(dim=1)


_WEIGHTS = torch.tensor([0.5, 1.0, 1.5, 2.0, 2.5])

LOSSES: dict[str, LossCase] = {
    "mse": LossCase(_mean(F.mse_loss), _numbers),
    "mse, scalar": LossCase(F.mse_loss, _numbers),
    "l1": LossCase(_mean(F.l1_loss), _numbers),
    "huber": LossCase(_mean(F.huber_loss, delta=0.7), _numbers),
    "smooth l1": LossCase(_mean(F.smooth_l1_loss), _numbers),
    "cross-entropy": LossCase(lambda output, target: F.cross_entropy(output, target, reduction="none"), _classes),
    "cross-entropy, scalar": LossCase(F.cross_entropy, _classes),
    "cross-entropy, class weights": LossCase(
        lambda output, target: F.cross_entropy(output, target, weight=_WEIGHTS, reduction="none"), _classes
    ),
    "cross-entropy, class weights, scalar": LossCase(
        lambda output, target: F.cross_entropy(output, target, weight=_WEIGHTS), _classes
    ),
    "cross-entropy, label smoothing": LossCase(
        lambda output, target: F.cross_entropy(output, target, label_smoothing=0.1, reduction="none"), _classes
    ),
    "cross-entropy, label smoothing, scalar": LossCase(
        lambda output, target: F.cross_entropy(output, target, label_smoothing=0.1), _classes
    ),
    "cross-entropy, probabilities": LossCase(
        lambda output, target: F.cross_entropy(output, target, reduction="none"), _distributions
    ),
    "cross-entropy, sequences": LossCase(
        lambda output, target: F.cross_entropy(output.transpose(1, 2), target, reduction="none").mean(dim=1),
        _tokens,
        sequences=True,
    ),
    "cross-entropy, flattened sequences, scalar": LossCase(
        lambda output, target: F.cross_entropy(output.flatten(0, 1), target.flatten()), _tokens, sequences=True
    ),
    "cross-entropy, ignored positions": LossCase(
        lambda output, target: F.cross_entropy(output.transpose(1, 2), target, reduction="none").sum(dim=1),
        _padded_tokens,
        sequences=True,
    ),
    "cross-entropy, ignored positions, scalar": LossCase(
        lambda output, target: F.cross_entropy(output.flatten(0, 1), target.flatten()), _padded_tokens, sequences=True
    ),
    "binary cross-entropy": LossCase(_mean(F.binary_cross_entropy_with_logits), _bits),
    "binary cross-entropy, positive weights": LossCase(
        _mean(F.binary_cross_entropy_with_logits, pos_weight=_WEIGHTS), _bits
    ),
    "binary cross-entropy of probabilities": LossCase(
        lambda output, target: F.binary_cross_entropy(output.sigmoid(), target, reduction="none").mean(dim=1), _bits
    ),
    "nll": LossCase(
        lambda output, target: F.nll_loss(F.log_softmax(output, dim=1), target, reduction="none"), _classes
    ),
    "nll, scalar": LossCase(lambda output, target: F.nll_loss(F.log_softmax(output, dim=1), target), _classes),
    "kl divergence": LossCase(
        lambda output, target: F.kl_div(F.log_softmax(output, dim=1), target, reduction="none").sum(dim=1),
        _distributions,
    ),
    "kl divergence, batch mean": LossCase(
        lambda output, target: F.kl_div(F.log_softmax(output, dim=1), target, reduction="batchmean"), _distributions
    ),
    "soft margin": LossCase(_mean(F.soft_margin_loss), lambda count: 2 * _bits(count) - 1),
}
