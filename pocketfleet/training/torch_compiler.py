"""Torch's compiler: what it makes of a function, and whether it works here; it needs a C++ compiler.

Tried with torch 2.13.0: ``torch.fx.experimental.proxy_tensor.make_fx``.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pocketfleet.errors import InputError

__all__ = ["compiled_function", "compiler_failure"]


def compiler_failure() -> str | None:
    """Why torch cannot compile on this machine, ``None`` if it can: found by compiling a sum.

    Some seconds the first time; torch keeps what it compiled on disk.
    """
    try:
        with warnings.catch_warnings():
            # Its own imports of what torch itself has deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.compile(_sum, fullgraph=True, dynamic=False)(torch.ones(2))
    except RuntimeError as exc:
        return _first_line(exc)
    return None


def _sum(x: torch.Tensor) -> torch.Tensor:
    return x + 1.0


def compiled_function(
    function: Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]], inputs: Sequence[torch.Tensor]
) -> Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]]:
    """The function compiled for inputs of these shapes, from a list of tensors to a list of tensors.

    It is traced first, so that the compiler sees what autograd and ``torch.vmap`` make of it.

    Raises:
        InputError: it cannot be compiled.
    """
    graph = make_fx(lambda *values: function(values))(*inputs)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    compiled: Callable[..., Any] = torch.compile(graph, fullgraph=True, dynamic=False)
    try:
        with warnings.catch_warnings():
            # Its own imports of what torch itself has deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            # Compiled at the first call.
            compiled(*inputs)
    except RuntimeError as exc:
        raise InputError(
            f"torch's compiler cannot compile the step: {_first_line(exc)}: leave engine.compile at false"
        ) from exc
    return lambda values: compiled(*values)


def _first_line(error: Exception) -> str:
    """The first line of an error that is not empty; torch's are pages long."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
