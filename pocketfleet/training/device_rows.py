"""Which rows of a data set belong to which device, for any number of devices at once.

A table of rows is padded: ``[k, n]`` numbers with ``counts`` ``[k]``, of which the first ``counts[i]`` of row ``i``
count; what follows repeats a row that the device has, or 0 where it has none.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["DeviceRows", "DrawnRows", "ListedRows", "PaddedRows", "padded"]

Rows = npt.NDArray[np.int64]
# The table and the counts.
PaddedRows = tuple[Rows, Rows]


class DeviceRows(Protocol):
    """Row numbers by device."""

    def __len__(self) -> int:
        """How many devices there are."""
        ...

    def __getitem__(self, device: int, /) -> Rows:
        """One device's rows; ``IndexError`` beyond the last."""
        ...

    def sizes(self) -> Rows:
        """How many rows each device has, ``[devices]``."""
        ...

    def many(self, devices: Rows) -> PaddedRows:
        """Several devices' rows, padded."""
        ...


class ListedRows:
    """All devices' rows one after another: ``rows[offsets[d] : offsets[d + 1]]`` are device ``d``'s.

    Without ``rows`` they are the numbers themselves: a data set that lies sorted by device.
    """

    def __init__(self, offsets: Rows, rows: Rows | None = None) -> None:
        self._offsets, self._rows = offsets, rows

    @classmethod
    def of(cls, parts: Sequence[Rows]) -> "ListedRows":
        """From one array a device."""
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
        return cls(offsets, np.concatenate([*parts, np.empty(0, dtype=np.int64)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, device: int) -> Rows:
        if not 0 <= device < len(self):
            raise IndexError(device)
        start, stop = self._offsets[device : device + 2].tolist()
        return np.arange(start, stop) if self._rows is None else self._rows[start:stop]

    def sizes(self) -> Rows:
        """How many rows each device has, ``[devices]``."""
        counts: Rows = np.diff(self._offsets)
        return counts

    def many(self, devices: Rows) -> PaddedRows:
        """Several devices' rows, padded."""
        start = self._offsets[devices]
        counts = self._offsets[devices + 1] - start
        place = np.arange(int(counts.max(initial=0)))
        flat = start[:, np.newaxis] + np.minimum(place, np.maximum(counts - 1, 0)[:, np.newaxis])
        # A device of no rows, the last one, would look beyond the end.
        flat = np.where(counts[:, np.newaxis] > 0, flat, 0)
        table: Rows = flat if self._rows is None else self._rows[flat]
        return table, counts


def padded(parts: Sequence[Rows]) -> PaddedRows:
    """One array a device as a padded table."""
    return ListedRows.of(parts).many(np.arange(len(parts)))


class DrawnRows:
    """As many rows for each device, drawn when they are asked for: a million devices hold no list.

    Args:
        devices: how many.
        count: rows of each.
        draw: the rows ``[k, count]`` of devices ``[k]``.
    """

    def __init__(self, devices: int, count: int, draw: Callable[[Rows], Rows]) -> None:
        self._devices, self._count, self._draw = devices, count, draw

    def __len__(self) -> int:
        return self._devices

    def __getitem__(self, device: int) -> Rows:
        if not 0 <= device < self._devices:
            raise IndexError(device)
        drawn: Rows = self._draw(np.array([device]))[0]
        return drawn

    def sizes(self) -> Rows:
        """How many rows each device has, without drawing them."""
        return np.full(self._devices, self._count, dtype=np.int64)

    def many(self, devices: Rows) -> PaddedRows:
        """Several devices' rows; all have as many."""
        return self._draw(devices), np.full(len(devices), self._count, dtype=np.int64)
