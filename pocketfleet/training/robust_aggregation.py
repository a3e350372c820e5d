"""Updates of which some may lie into one, by a rule that bounds what a liar can do.

Each update is kept as a row, and all are looked at together, some columns at a time: memory is one block, whatever the
cohort and the model (multi-Krum's distances, ``8 * cohort ** 2`` bytes, come on top). A rule that needs one look at
each update alone, and so no rows, is in ``norm_bound``.

What a row holds: the delta scaled as ``scale`` says, then the buffers and what else is reported, as they are. Rows are
float32 where no tensor is float64; counters among the buffers are exact up to 2**24.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import torch

from pocketfleet.training.robust_rules import coordinate_median, krum_choice, squared_distances, trimmed_mean
from pocketfleet.training.update import Update
from pocketfleet.training.update_rows import UpdateRows
from pocketfleet.training.weights import Tensors

__all__ = ["Median", "MultiKrum", "RowAggregator", "RowRule", "TrimmedMean"]

Float64s = npt.NDArray[np.float64]
# Of a block as float64; a rule holds two or three of the size at a time.
BLOCK_BYTES = 32 * 2**20


class RowRule(Protocol):
    """From rows to one row; pure, and picklable."""

    def combine(self, rows: UpdateRows, *, deltas: int, block_bytes: int) -> Float64s:
        """One row ``[rows.columns]`` of all; the first ``deltas`` columns are of the delta."""
        ...


@dataclass(frozen=True, slots=True)
class Median:
    """Rule 1 of ``robust_rules``, of all that is reported alike."""

    def combine(self, rows: UpdateRows, *, deltas: int, block_bytes: int) -> Float64s:  # noqa: ARG002 - the seam's
        """Each column's median."""
        return _by_columns(rows, coordinate_median, block_bytes=block_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimmedMean:
    """Rule 2 of ``robust_rules``, of all that is reported alike; ``ratio`` is of each end."""

    ratio: float

    def combine(self, rows: UpdateRows, *, deltas: int, block_bytes: int) -> Float64s:  # noqa: ARG002 - the seam's
        """Each column's trimmed mean."""
        return _by_columns(rows, lambda block: trimmed_mean(block, ratio=self.ratio), block_bytes=block_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiKrum:
    """Rule 3 of ``robust_rules``: distances are of deltas alone; all that the chosen report is averaged."""

    byzantine: int

    def combine(self, rows: UpdateRows, *, deltas: int, block_bytes: int) -> Float64s:
        """The mean of the chosen rows."""
        distances = np.zeros((len(rows), len(rows)))
        for _, block in rows.blocks(block_bytes=block_bytes, stop=deltas):
            distances += squared_distances(block)
        chosen = krum_choice(distances, byzantine=self.byzantine)
        return _by_columns(rows, lambda block: block[chosen].astype(np.float64).mean(axis=0), block_bytes=block_bytes)


def _by_columns(
    rows: UpdateRows, rule: Callable[[npt.NDArray[np.floating]], Float64s], *, block_bytes: int
) -> Float64s:
    combined = np.empty(rows.columns)
    for columns, block in rows.blocks(block_bytes=block_bytes):
        combined[columns] = rule(block)
    return combined


class RowAggregator:
    """All updates of a round, kept, then combined by ``rule``; the seam of ``aggregation``.

    Args:
        rule: from rows to one.
        folder: where rows are kept in a file; ``None``: in memory, as in a worker process, which sends them back.
        block_bytes: memory to compute with.
    """

    def __init__(self, rule: RowRule, *, folder: Path | None = None, block_bytes: int = BLOCK_BYTES) -> None:
        self._rule = rule
        self._rows = UpdateRows(folder)
        self._block_bytes = block_bytes
        self._kinds: tuple[_Kind, ...] = ()
        self.num_updates = 0

    def add_many(self, updates: Update, *, weight: Float64s, scale: Float64s) -> None:
        """Add a chunk of devices.

        Args:
            updates: tensors ``[k, ...]``; not changed.
            weight: ``[k]``; 0 leaves a device out, more than that makes no difference: no rule here weighs.
            scale: ``[k]``, factors of the deltas.

        Raises:
            ValueError: names, shapes or types are not those of the updates before; nothing has changed.
            PocketfleetError: the file of rows cannot be written.
        """
        kept = np.flatnonzero(weight > 0.0)
        if len(kept):
            kinds = tuple(_kinds(updates))
            self._check(kinds)
            self._rows.append(_flat(updates, kinds, kept, scale[kept]))
            self._kinds = kinds
            self.num_updates += len(kept)

    def merge(self, other: Self) -> None:
        """Add the updates of another one, which are in memory.

        Raises:
            ValueError: it is of another model; nothing has changed.
            PocketfleetError: the file of rows cannot be written.
        """
        if other.num_updates:
            self._check(other._kinds)
            self._rows.extend(other._rows)
            self._kinds = other._kinds
            self.num_updates += other.num_updates

    def result(self) -> Update:
        """The updates combined, in float64.

        Raises:
            ValueError: nothing was added.
        """
        if self.num_updates == 0:
            raise ValueError("no update was added")
        deltas = sum(kind.size for kind in self._kinds if kind.group == "delta")
        combined = torch.from_numpy(self._rule.combine(self._rows, deltas=deltas, block_bytes=self._block_bytes))
        groups: dict[str, Tensors] = {}
        pieces = torch.split(combined, [kind.size for kind in self._kinds])
        for kind, values in zip(self._kinds, pieces, strict=True):
            groups.setdefault(kind.group, {})[kind.name] = values.reshape(kind.shape).clone()
        return Update(**({"delta": {}, "buffers": {}} | groups))

    def _check(self, kinds: "tuple[_Kind, ...]") -> None:
        if self._kinds and kinds != self._kinds:
            raise ValueError("updates have other names, shapes or types than the updates before them")


@dataclass(frozen=True, slots=True)
class _Kind:
    """A tensor of one device's update."""

    group: str
    name: str
    shape: torch.Size
    dtype: torch.dtype

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def _kinds(updates: Update) -> "Iterator[_Kind]":
    for group, tensors in updates.groups().items():
        for name, value in tensors.items():
            yield _Kind(group, name, value.shape[1:], value.dtype)


def _flat(
    updates: Update, kinds: tuple[_Kind, ...], kept: npt.NDArray[np.int64], scale: Float64s
) -> npt.NDArray[np.floating]:
    """Rows ``[len(kept), columns]``."""
    double = any(kind.dtype == torch.float64 for kind in kinds)
    rows = np.empty((len(kept), sum(kind.size for kind in kinds)), dtype=np.float64 if double else np.float32)
    start = 0
    groups = updates.groups()
    for kind in kinds:
        values = groups[kind.group][kind.name].numpy(force=True)[kept].reshape(len(kept), kind.size)
        if kind.group == "delta" and bool((scale != 1.0).any()):
            values = values * scale[:, np.newaxis]
        rows[:, start : start + kind.size] = values
        start += kind.size
    return rows
