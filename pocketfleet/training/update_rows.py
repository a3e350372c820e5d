"""Many devices' updates side by side, one row a device, read in blocks of columns: in memory, or in a file.

Each piece that is appended is stored with the values of a column together, so that a block of columns is one stretch
of each piece. Reading takes memory for one block, whatever the number of rows and columns.
"""

import io
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketfleet.errors import PocketfleetError

__all__ = ["UpdateRows"]

Floats = npt.NDArray[np.floating]


class UpdateRows:
    """Rows of one width and type, in the order in which they were appended.

    Args:
        folder: rows go to a file there, which has no name and is gone with this object; ``None``: they stay in memory,
            and can be pickled.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._file: io.BufferedRandom | None = None
        self._counts: list[int] = []  # rows of each piece
        self._pieces: list[Floats] = []  # [columns, rows] each, if in memory
        self.columns = 0
        self.dtype: np.dtype[Any] = np.dtype(np.float32)

    def __len__(self) -> int:
        return sum(self._counts)

    def append(self, rows: Floats) -> None:
        """Add rows ``[k, columns]``; the first ones set the width and the type.

        Raises:
            ValueError: another width or type than before.
            PocketfleetError: the file cannot be written.
        """
        if self._counts and (rows.shape[1], rows.dtype) != (self.columns, self.dtype):
            raise ValueError(f"rows must be {self.columns} values of {self.dtype}, got {rows.shape[1]} of {rows.dtype}")
        if len(rows):
            self._keep(np.array(rows.T, order="C"))
            self.columns, self.dtype = rows.shape[1], rows.dtype
            self._counts.append(len(rows))

    def extend(self, other: "UpdateRows") -> None:
        """Add the rows of ``other``, which are in memory.

        Raises:
            ValueError: as ``append``.
        """
        assert other._folder is None, "rows in a file stay where they are"
        for piece in other._pieces:
            self.append(piece.T)

    def blocks(self, *, block_bytes: int, stop: int | None = None) -> Iterator[tuple[slice, Floats]]:
        """All rows, some columns at a time.

        Args:
            block_bytes: of a block as float64, which is what it takes to compute with; one column at least.
            stop: the column after the last; ``None``: all.

        Yields:
            Which columns, and their values ``[rows, columns]``.
        """
        size = max(1, block_bytes // (8 * len(self)))
        end = self.columns if stop is None else stop
        for start in range(0, end, size):
            columns = slice(start, min(start + size, end))
            yield columns, np.concatenate(list(self._read(columns)), axis=1).T

    def __getstate__(self) -> dict[str, Any]:
        """The rows, which must be in memory."""
        assert self._file is None, "rows in a file stay in their process"
        return self.__dict__

    def _keep(self, piece: Floats) -> None:
        if self._folder is None:
            self._pieces.append(piece)
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - it lives as long as the rows
                weakref.finalize(self, self._file.close)
            self._file.seek(0, io.SEEK_END)
            self._file.write(piece.data.cast("B"))
        except OSError as exc:
            raise PocketfleetError(
                f"cannot keep a round's updates in {self._folder}: {exc}; they take a model's size times "
                "rounds.cohort there: make room, lower the cohort, or choose an aggregation.rule that keeps none"
            ) from exc

    def _read(self, columns: slice) -> Iterator[Floats]:
        """Of each piece the columns, ``[columns, rows]``."""
        if self._folder is None:
            yield from (piece[columns] for piece in self._pieces)
            return
        assert self._file is not None
        piece_start = 0
        for count in self._counts:
            column_bytes = count * self.dtype.itemsize
            values = np.empty((columns.stop - columns.start, count), dtype=self.dtype)
            self._file.seek(piece_start + columns.start * column_bytes)
            read = self._file.readinto(values.data.cast("B"))
            assert read == values.nbytes
            yield values
            piece_start += self.columns * column_bytes
