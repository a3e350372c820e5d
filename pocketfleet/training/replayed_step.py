"""A step as the list of its operators: traced once for inputs of some shapes, then replayed.

What autograd, ``functional_call`` and ``torch.vmap`` do around the operators takes a tenth of a small convolutional
network's step and half of a multilayer perceptron's. The operators are the very same, and so are the bits.

Tried with torch 2.13.0: ``torch.fx.experimental.proxy_tensor.make_fx``.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Protocol

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pocketfleet.errors import InputError
from pocketfleet.training.step_settings import Hyper
from pocketfleet.training.torch_compiler import first_line
from pocketfleet.training.train_step import TrainState

__all__ = ["EagerStep", "ReplayedStep", "load_tracer"]

# Tracing takes as long as some fifty steps save: a shape that came so often will come again.
_TRACED_AT = 20
# Where the first trace would load torch's compiler, some two seconds: so many steps, which save a few tenths of a
# millisecond each, are worth it.
_LOADED_AT = 5_000


class EagerStep(Protocol):
    """A step without draws: the loss before it, and the next state."""

    def __call__(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None, hyper: Hyper
    ) -> tuple[torch.Tensor, TrainState]:
        """``mask`` is of padded batches."""
        ...


class ReplayedStep:
    """Calls a step until inputs of the same shapes have come often, then replays it.

    Tensors must lie in memory in the same way at every call: a traced program, like the kernels that it runs, is for
    tensors as they lay when it was traced.

    Args:
        eager: the step.
        compiled: hand the traced step to torch's compiler, at the first call; ``compiler_failure`` tells whether it
            works here.
    """

    def __init__(self, eager: EagerStep, *, compiled: bool = False) -> None:
        self._eager = eager
        self._compiled = compiled
        # By the inputs' shapes: how often they came, and their programs.
        self._seen: Counter[tuple[Any, ...]] = Counter()
        self._programs: dict[tuple[Any, ...], Callable[..., Any]] = {}

    @property
    def num_programs(self) -> int:
        """How many shapes of inputs are replayed."""
        return len(self._programs)

    def __call__(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None, hyper: Hyper
    ) -> tuple[torch.Tensor, TrainState]:
        """As the step; the result is not attached to its inputs by autograd.

        Raises:
            InputError: torch's compiler cannot compile the step.
        """
        inputs = [*_tensors(state), *hyper.values(), x, y, *([] if mask is None else [mask])]
        key = (mask is None, *((value.shape, value.dtype) for value in inputs))
        if key not in self._programs:
            self._seen[key] += 1
            enough = _TRACED_AT if "torch._dynamo" in sys.modules else _LOADED_AT
            if not self._compiled and self._seen[key] < enough:
                return self._eager(state, x, y, mask, hyper)
            self._programs[key] = self._program(state, hyper, masked=mask is not None, inputs=inputs)
        loss, *values = self._programs[key](*inputs)
        return loss, _with_tensors(state, values)

    def _program(
        self, state: TrainState, hyper: Hyper, *, masked: bool, inputs: list[torch.Tensor]
    ) -> Callable[..., Any]:
        count = len(_tensors(state))

        def flat(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            at = _with_tensors(state, values[:count])
            named = dict(zip(hyper, values[count:], strict=False))
            x, y, *rest = values[count + len(hyper) :]
            loss, after = self._eager(at, x, y, rest[0] if masked else None, named)
            return (loss, *_tensors(after))

        # Inputs are told apart by their tensors' identity, and before a device's first step the anchor is its weights.
        graph = make_fx(flat)(*(value.detach() for value in inputs))
        graph.graph.eliminate_dead_code()
        graph.recompile()
        if not self._compiled:
            return graph
        compiled: Callable[..., Any] = torch.compile(graph, fullgraph=True, dynamic=False)
        try:
            with warnings.catch_warnings():
                # Its own imports of what torch itself has deprecated.
                warnings.simplefilter("ignore", DeprecationWarning)
                # Compiled at the first call.
                compiled(*inputs)
        except RuntimeError as exc:
            raise InputError(
                f"torch's compiler cannot compile the step: {first_line(exc)}: leave engine.compile at false"
            ) from exc
        return compiled


def load_tracer() -> None:
    """Import what tracing imports, some two seconds: steps are then traced after twenty of the same shapes."""
    make_fx(torch.neg)(torch.ones(()))


def _tensors(state: TrainState) -> list[torch.Tensor]:
    return [value for part in fields(state) for value in getattr(state, part.name).values()]


def _with_tensors(state: TrainState, values: "list[torch.Tensor] | tuple[torch.Tensor, ...]") -> TrainState:
    left = iter(values)
    return replace(
        state, **{part.name: {name: next(left) for name in getattr(state, part.name)} for part in fields(state)}
    )
