"""Inputs and targets of foreign files as arrays: which types they become, and what is refused.

1. Inputs become ``float32``; ``int64`` where they are asked for as tokens. Texts of one length become the numbers of
   their characters (``training.character``).
2. Targets: integers and booleans are classes, ``int64 [n]``; floats are numbers, ``float32``, ``[n, 1]`` where there is
   one an example; single characters are classes. Asking for ``classes`` or ``numbers`` settles it otherwise.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pocketfleet.errors import InputError
from pocketfleet.training.character import codes

__all__ = ["Column", "Targets", "check_targets", "inputs", "targets_of"]

Targets = Literal["auto", "classes", "numbers"]
Column = npt.NDArray[np.generic]
_TARGETS = ("auto", "classes", "numbers")


def check_targets(targets: str) -> None:
    """Raise ``InputError`` unless it is one of ``Targets``."""
    if targets not in _TARGETS:
        raise InputError(f"task.options.targets must be one of {list(_TARGETS)}, got {targets!r}")


def inputs(values: Sequence[Any] | Column, *, tokens: bool, shape: Sequence[int], where: str) -> Column:
    """``[n, ...]``, each row reshaped to ``shape`` where that is not empty; ``where`` names them in messages."""
    column = _array(values, where=where)
    if tokens or (column.dtype == np.int64 and column.ndim == 2 and _texts(values)):
        given, column = column, column.astype(np.int64)
        if not np.array_equal(given, column):
            raise InputError(
                f"{where} must be whole numbers to be tokens (task.options.tokens), got {given.dtype} values"
            )
    else:
        column = column.astype(np.float32)
    if shape:
        per_row = int(np.prod(column.shape[1:]))
        if int(np.prod(shape)) != per_row:
            raise InputError(
                f"{where} has {per_row} values an example, which task.options.shape {list(shape)} does not fit"
            )
        column = column.reshape(len(column), *shape)
    if column.ndim == 1:
        column = column[:, np.newaxis]
    return column


def targets_of(values: Sequence[Any] | Column, *, targets: Targets, where: str) -> Column:
    """``int64 [n]`` classes or ``float32 [n, ...]`` numbers; ``where`` names them in messages."""
    column = _array(values, where=where)
    if _texts(values) and column.ndim == 2:
        if column.shape[1] != 1:
            raise InputError(
                f"{where} must be numbers or single characters to be targets, got texts of {column.shape[1]}"
            )
        column = column[:, 0]
    if targets == "classes" or (targets == "auto" and not np.issubdtype(column.dtype, np.floating)):
        classes = column.astype(np.int64)
        if not np.array_equal(classes, column) or (classes < 0).any():
            raise InputError(f"{where} must be whole numbers from 0 to be classes (task.options.targets)")
        return classes
    numbers = column.astype(np.float32)
    return numbers[:, np.newaxis] if numbers.ndim == 1 else numbers


def _texts(values: Sequence[Any] | Column) -> bool:
    return len(values) > 0 and isinstance(values[0], str)


def _array(values: Sequence[Any] | Column, *, where: str) -> Column:
    if _texts(values):
        texts = list(values)
        if not all(isinstance(text, str) and len(text) == len(texts[0]) for text in texts):
            raise InputError(f"{where} must be texts of one length, got others")
        return np.stack([codes(text) for text in texts])
    try:
        column = np.asarray(values)
    except ValueError as exc:
        raise InputError(f"{where} must have one shape in every example: {exc}") from exc
    if column.dtype == np.bool_ or np.issubdtype(column.dtype, np.integer):
        return column.astype(np.int64)
    if not np.issubdtype(column.dtype, np.floating):
        raise InputError(f"{where} must be numbers, got {column.dtype} such as {column.ravel()[:1].tolist()}")
    if not np.isfinite(column).all():
        raise InputError(f"{where} must be finite numbers: an example has nan, inf, or nothing")
    return column
