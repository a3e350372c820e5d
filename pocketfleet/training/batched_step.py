"""``TrainStep`` of many devices at once: every tensor of a state has one more dimension in front, ``[k, ...]``.

Rules:

1. The forward pass is mapped over devices by ``torch.vmap``; a device's loss depends on its own weights alone, so that
   the gradient of the sum of all losses holds each device's own.
2. What a step makes of its gradient is ``TrainStep.update``, mapped.
3. Batches of several sizes are padded and masked where one example's gradient depends on no other example
   (``maskable``); where it does (batch norm), devices are grouped by the size of their batch. A loss is one value an
   example: whoever makes a step of a task refuses another one.
4. A step whose shapes come again is recorded and replayed, ``replayed_step``.
5. ``compiled`` hands the step to torch's compiler; the same arithmetic in fewer passes over memory.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.func import functional_call

from pocketfleet.training.replayed_step import ReplayedStep
from pocketfleet.training.step_settings import Hyper
from pocketfleet.training.train_step import Loss, TrainState, TrainStep
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["BatchedStep", "joined_states", "maskable", "rows_of_state", "stacked_state"]

Sizes = npt.NDArray[np.int64]


def stacked_state(state: TrainState, count: int) -> TrainState:
    """The same state on ``count`` devices."""
    return state.mapped(lambda value: value.expand(count, *value.shape))


def rows_of_state(state: TrainState, rows: slice | torch.Tensor) -> TrainState:
    """Some devices' states."""
    return state.mapped(lambda value: value[rows])


class BatchedStep:
    """The step of one model on many devices.

    Args:
        step: of one device.
        masked: whether batches of several sizes are masked; ``maskable`` tells whether they may be.
        compiled: hand the step to torch's compiler, which ``compiler_failure`` tells to be there.
        running: the context that the model runs in, such as ``UnfoldedConvolutions``.
    """

    def __init__(
        self,
        step: TrainStep,
        *,
        masked: bool,
        compiled: bool = False,
        running: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self._step = step
        self.running = running
        self.masked = masked
        self._compiled = compiled
        self.replayed = ReplayedStep(self._eager, compiled=compiled)

    @property
    def fixed_size(self) -> bool:
        """Whether each new number of devices or examples takes a while to prepare for: the compiler does."""
        return self._compiled and self.masked

    def __call__(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, sizes: Sizes, hyper: Hyper
    ) -> tuple[torch.Tensor, TrainState]:
        """One step of each device.

        Args:
            state: of ``k`` devices; not changed.
            x: ``[k, b, ...]``.
            y: ``[k, b, ...]``.
            sizes: how many of its ``b`` examples count on each device, ``[k]``, 1 or more.
            hyper: as ``TrainStep`` takes them.

        Returns:
            Mean losses before the step ``[k]``, and the next states.
        """
        width = x.shape[1]
        if self.fixed_size or (self.masked and bool((sizes < width).any())):
            mask = (torch.arange(width) < torch.from_numpy(sizes)[:, None]).to(torch.float32).to(x.device)
            return self.replayed(state, x, y, mask, hyper)
        alike = np.unique(sizes)
        if len(alike) == 1:
            return self.replayed(state, x[:, : alike[0]], y[:, : alike[0]], None, hyper)
        losses, states, order = [], [], []
        for size in alike.tolist():
            rows = torch.from_numpy(np.flatnonzero(sizes == size))
            loss, after = self.replayed(rows_of_state(state, rows), x[rows, :size], y[rows, :size], None, hyper)
            losses.append(loss)
            states.append(after)
            order.append(rows)
        back = torch.argsort(torch.cat(order))
        return torch.cat(losses)[back], rows_of_state(joined_states(states), back)

    def _eager(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None, hyper: Hyper
    ) -> tuple[torch.Tensor, TrainState]:
        leaves = {name: value.detach().requires_grad_() for name, value in state.trainable.items()}
        losses, buffers = self._losses(leaves, state.buffers, state.frozen, x, y, mask)
        gradients = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True)
        after = {name: value.detach() for name, value in buffers.items()}
        named = dict(zip(leaves, gradients, strict=True))
        return losses.detach(), self._updated(replace(state, buffers=after), named, hyper)

    def _losses(
        self,
        trainable: Tensors,
        buffers: Tensors,
        frozen: Tensors,
        x: torch.Tensor,
        y: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, Tensors]:
        model, loss = self._step.model, self._step.loss
        model.train()

        def one(
            own: Tensors, kept: Tensors, x: torch.Tensor, y: torch.Tensor, counts: torch.Tensor | None
        ) -> tuple[torch.Tensor, Tensors]:
            tensors = own | frozen | {name: value.clone() for name, value in kept.items()}
            with self.running():
                losses = loss(functional_call(model, tensors, (x,)), y)
            mean = losses.mean() if counts is None else (losses * counts).sum() / counts.sum()
            return mean, {name: tensors[name] for name in kept}

        mapped: tuple[torch.Tensor, Tensors] = torch.vmap(
            one, in_dims=(0, 0 if buffers else None, 0, 0, None if mask is None else 0)
        )(trainable, buffers, x, y, mask)
        return mapped

    def _updated(self, state: TrainState, gradient: Tensors, hyper: Hyper) -> TrainState:
        def one(parts: dict[str, Tensors], gradient: Tensors) -> dict[str, Tensors]:
            after = self._step.update(TrainState(**parts, frozen={}), gradient, hyper)
            return {"trainable": after.trainable, "optimizer_slots": after.optimizer_slots}

        return replace(state, **torch.vmap(one)(state.own(), gradient))


def joined_states(states: list[TrainState]) -> TrainState:
    """States of groups of devices, one group after the other."""
    parts = {
        part: {name: torch.cat([getattr(state, part)[name] for state in states]) for name in of}
        for part, of in states[0].own().items()
    }
    return replace(states[0], **parts)


def maskable(model: nn.Module, loss: Loss, weights: Weights, x: torch.Tensor, y: torch.Tensor) -> bool:
    """Whether padding a batch and masking the padding leaves a step's loss and gradient as they are.

    Tried in float64 with the given batch ``[b, ...]``, ``b`` of 2 or more: its last example counts as padding. False
    too where the loss is a scalar.
    """
    own = _in_float64(weights.trainable)
    rest = _in_float64(weights.frozen | weights.buffers)
    batch = _in_float64({"x": x, "y": y})
    model.train()

    def found(given: int) -> tuple[torch.Tensor, ...] | None:
        """Losses and gradient of the mean of all but the last example, of a forward pass over ``given``."""
        leaves = {name: value.detach().requires_grad_() for name, value in own.items()}
        tensors = leaves | {name: value.clone() for name, value in rest.items()}
        losses = loss(functional_call(model, tensors, (batch["x"][:given],)), batch["y"][:given])
        if losses.shape != (given,):
            return None
        counted = losses[: len(x) - 1]
        values = list(leaves.values())
        return counted.detach(), *torch.autograd.grad(counted.mean(), values, allow_unused=True, materialize_grads=True)

    alone, padded = found(len(x) - 1), found(len(x))
    if alone is None or padded is None:
        return False
    # Of float64's 16 digits nine are asked for: other examples' influence is far larger, another order of sums smaller.
    return all(torch.allclose(one, other, rtol=1e-9, atol=1e-12) for one, other in zip(alone, padded, strict=True))


def _in_float64(tensors: Tensors) -> Tensors:
    return {name: value.to(torch.float64) if value.is_floating_point() else value for name, value in tensors.items()}
