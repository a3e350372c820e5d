"""Whether torch's compiler works here: it needs a C++ compiler, which many machines lack."""

import warnings

import torch

__all__ = ["compiler_failure", "first_line"]


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
        return first_line(exc)
    return None


def _sum(x: torch.Tensor) -> torch.Tensor:
    return x + 1.0


def first_line(error: Exception) -> str:
    """The first line of an error that is not empty; torch's are pages long."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
