"""Columns of Arrow tables as arrays, rows first; nested lists of one length become dimensions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pocketfleet.errors import InputError

__all__ = ["check_names", "stacked", "values"]


def check_names(names: Sequence[str], *, present: Sequence[str], where: str, key: str) -> None:
    """Raise ``InputError`` unless all ``names`` of an option are among the columns of ``where``."""
    for name in names:
        if name not in present:
            raise InputError(
                f"{where} has no column {name!r}, which task.options.{key} names; it has {sorted(present)}"
            )


def stacked(table: Any, names: Sequence[str], *, where: str) -> Sequence[Any] | npt.NDArray[np.generic]:  # noqa: ANN401
    """One column as it is, several side by side as numbers ``[rows, columns]``."""
    columns = [values(table.column(name), where=f"{where}: column {name!r}") for name in names]
    if len(columns) == 1:
        return columns[0]
    for name, column in zip(names, columns, strict=True):
        if not isinstance(column, np.ndarray) or column.ndim != 1:
            raise InputError(f"{where}: column {name!r} must hold one number an example to stand beside others")
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def values(column: Any, *, where: str) -> Sequence[Any] | npt.NDArray[np.generic]:  # noqa: ANN401 - pyarrow has no types
    """A column's values: an array ``[rows, ...]``, or a list of texts.

    Raises:
        InputError: values are missing, lists differ in length, or the type is none of numbers, texts and lists of them.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks == 1 else pa.concat_arrays(array.chunks)
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if array.null_count:
        raise InputError(f"{where} has {array.null_count} missing values: fill them or drop their rows")
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
        if len(lengths) and (lengths != lengths[0]).any():
            raise InputError(f"{where} has lists of {lengths.min()} to {lengths.max()} values; examples need one shape")
        inner = np.asarray(values(array.flatten(), where=where))
        return inner.reshape(len(array), int(lengths[0]) if len(lengths) else 0, *inner.shape[1:])
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts: list[Any] = array.to_pylist()
        return texts
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return np.asarray(array.to_numpy(zero_copy_only=False))
    raise InputError(f"{where} holds {kind}; examples are made of numbers, texts, and lists of them: convert it first")
