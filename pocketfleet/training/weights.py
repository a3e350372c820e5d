"""A model taken apart: what is learnt, what stays, what a step updates on the side.

``trainable`` are parameters that require a gradient; ``buffers`` are buffers that a training step changes
(batch-norm statistics); everything else is ``frozen`` and travels to a phone once a task.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from pocketfleet.errors import InputError
from pocketfleet.training.running_module import error_advice, running_module

__all__ = ["Tensors", "Weights", "all_finite", "model_weights", "tensors_sha256"]

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A model's tensors by full name, each group sorted by name, detached and contiguous."""

    trainable: Tensors
    buffers: Tensors
    frozen: Tensors

    def with_frozen(self, values: Mapping[str, torch.Tensor]) -> "Weights":
        """The same weights with some frozen tensors replaced.

        Raises:
            ValueError: a name is not frozen here, or a value has another shape.
        """
        unknown = sorted(set(values) - set(self.frozen))
        if unknown:
            raise ValueError(f"not frozen weights of this model: {unknown}")
        for name, value in values.items():
            if value.shape != self.frozen[name].shape:
                want, got = tuple(self.frozen[name].shape), tuple(value.shape)
                raise ValueError(f"frozen weight {name!r} must be of shape {want}, got {got}")
        return replace(self, frozen=self.frozen | dict(values))


def _changed_buffers(model: nn.Module, x: torch.Tensor) -> set[str]:
    """Names of the buffers that a forward pass in training mode writes to or replaces."""
    was_training = model.training
    model.train()
    try:
        # A second time from other values: a batch's statistics may happen to equal what is there.
        return _changed_from(model, x, shift=0.0) | _changed_from(model, x, shift=1.0)
    finally:
        model.train(was_training)


def _changed_from(model: nn.Module, x: torch.Tensor, *, shift: float) -> set[str]:
    # Values are compared, not version counters: torch's batch_norm writes to its statistics without counting.
    before = {
        name: value.detach() + shift if value.is_floating_point() else value.detach()
        for name, value in model.named_buffers()
    }
    tensors = {name: value.detach() for name, value in model.named_parameters()}
    tensors |= {name: value.clone() for name, value in before.items()}
    with torch.no_grad():
        # Puts a buffer that the model replaces (``self.mean = ...``) into the one dictionary it is given.
        torch.func.functional_call(model, tensors, (x,))
    return {name for name, value in before.items() if not torch.equal(tensors[name], value)}


def model_weights(model: nn.Module, example_x: torch.Tensor) -> Weights:
    """Take a model apart.

    Args:
        model: any module called as ``model(x)``.
        example_x: a small batch ``[batch, ...]``, used to see which buffers a training step changes.

    Raises:
        InputError: nothing is trainable, or the model does not accept the batch.
    """
    with running_module(model) as running:
        try:
            changed = _changed_buffers(model, example_x)
        except Exception as exc:
            raise InputError(
                f"the model does not accept the task's examples, a batch of shape {tuple(example_x.shape)} and type "
                f"{example_x.dtype}: in {running.text(outside='no layer')}: {type(exc).__name__}: {exc}"
                f"{error_advice(exc)}"
            ) from exc
    groups: dict[str, Tensors] = {"trainable": {}, "buffers": {}, "frozen": {}}
    for name, value in sorted([*model.named_parameters(), *model.named_buffers()]):
        group = "trainable" if value.requires_grad else "buffers" if name in changed else "frozen"
        groups[group][name] = value.detach().clone().contiguous()
    if not groups["trainable"]:
        raise InputError("the model has no parameter that requires a gradient: nothing to train")
    return Weights(**groups)


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names in sorted order, each followed by the tensor's little-endian bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].detach().contiguous().numpy()
        digest.update(name.encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def all_finite(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether every value of every floating-point tensor is finite."""
    return all(bool(np.isfinite(value.numpy()).all()) for value in tensors.values() if value.is_floating_point())
