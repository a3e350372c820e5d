"""Writes the columns of ``user_examples`` one user after the other: what is written takes no memory."""

from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
import numpy.typing as npt

from pocketfleet.errors import InputError

__all__ = ["UserExamplesWriter"]

Column = npt.NDArray[np.generic]


class UserExamplesWriter:
    """A context manager; its folder can be opened by ``UserExamples.open`` once it has ended.

    Args:
        folder: there already, of a writer that removes it where this one fails.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._columns: list[_GrowingColumn] = []
        self._sizes: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for column in self._columns:
            column.close()
        if error is None and not self._columns:
            raise InputError("there are no examples to convert")
        offsets = np.concatenate([[0], np.cumsum(self._sizes, dtype=np.int64)])
        np.save(self._folder / "offsets.npy", offsets)

    def add_nothing(self) -> None:
        """The next user has no rows, and so no shape."""
        self._sizes.append(0)

    def add(self, x: Column, y: Column, *, where: str) -> None:
        """Write the next user's rows, ``[n, ...]`` each; ``where`` names them in messages.

        Raises:
            InputError: their shape or type is not that of the first user's.
        """
        if len(x) != len(y):
            raise InputError(f"{where} has {len(x)} inputs (x) and {len(y)} targets (y): give each example both")
        if not self._columns:
            self._columns = [
                _GrowingColumn(self._folder / f"{name}.npy", column) for name, column in (("x", x), ("y", y))
            ]
        for name, column, rows in zip("xy", self._columns, (x, y), strict=True):
            if (rows.shape[1:], rows.dtype) != column.kind:
                raise InputError(
                    f"{where} has {name} of shape {rows.shape[1:]} and type {rows.dtype}, other than the first one's, "
                    f"{column.kind[0]} and {column.kind[1]}"
                )
            column.append(rows)
        self._sizes.append(len(x))


class _GrowingColumn:
    """A ``.npy`` file whose number of rows is written last."""

    def __init__(self, path: Path, like: Column) -> None:
        self.kind: tuple[tuple[int, ...], np.dtype[np.generic]] = (like.shape[1:], like.dtype)
        self._file: IO[bytes] = path.open("wb")
        self._rows = 0
        self._header()
        self._start = self._file.tell()

    def append(self, rows: Column) -> None:
        self._file.write(np.ascontiguousarray(rows).data if rows.size else b"")
        self._rows += len(rows)

    def close(self) -> None:
        self._file.seek(0)
        self._header()
        # NumPy leaves room for the first dimension to grow.
        assert self._file.tell() == self._start
        self._file.close()

    def _header(self) -> None:
        shape, kind = self.kind
        description = np.lib.format.dtype_to_descr(kind)
        header = {"descr": description, "fortran_order": False, "shape": (self._rows, *shape)}
        np.lib.format.write_array_header_1_0(self._file, header)
