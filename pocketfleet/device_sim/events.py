"""What happened to which device when: a log of rows, its hash, and their order.

Kinds of rows (``seconds``, ``bytes`` and ``joules`` are what this row alone spent, ``metered_bytes`` those of the
bytes that cost money; ``device`` is -1 for the server's):

1. ``assign``: a device was given work.
2. ``download``, ``train``, ``upload``: a stage of an attempt ended; ``reason`` says what cut it short, if anything.
3. ``report``: an update arrived; ``reason`` is ``accepted``, or why it was rejected.
4. ``drop``: an attempt ended without a report, ``reason`` says why.
5. ``close``: a round ended; ``reason`` is ``cohort``, ``deadline``, ``abandoned`` or ``buffer``.
6. ``evaluate``: a device evaluated the version that the row's round made, beside the released one; ``reason`` is
   ``accepted``, or ``late`` when the stage was over. Its bytes are of both downloads.
7. ``release``: what the version that the row's round made (-1: the untrained one) became for devices, the ``reason``;
   see ``training.release_gate``. There are rows of this kind and the one before only where a gate is.
8. ``receive``, then ``shares``, ``masked`` or ``unmask``: what a device received at a stage of a closed round and what
   it sent, ``secure_stages.STAGES``; ``reason`` says what cut it short. ``sum``: the stages are over; ``reason`` is
   ``no_sum`` where there is none. Only under secure aggregation.

Rows are ordered by time; of equal times the one logged first comes first. Words are kept as numbers of a list.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

__all__ = ["COLUMNS", "KINDS", "REASONS", "SERVER", "EventLog", "EventsHash", "in_order"]

# Column names and types of the log; ``steps`` counts training steps of the row.
COLUMNS = {
    "time_s": "float64",
    "sequence": "int64",
    "device": "int64",
    "round": "int64",
    "kind": "category",
    "seconds": "float64",
    "bytes": "int64",
    "metered_bytes": "int64",
    "joules": "float64",
    "steps": "int64",
    "reason": "category",
}
SERVER = -1
KINDS = (
    *("assign", "download", "train", "upload", "report", "drop", "close", "evaluate", "release"),
    *("receive", "shares", "masked", "unmask", "sum"),
)
# What cut a stage short or dropped a device (``attempt.Drop``), what became of a report (``round.ReportCode``), what
# closed a round, what a version became (``release_verdict.ReleaseState``).
REASONS = (
    *("", "in_use", "not_charging", "metered", "low_battery", "link_lost", "deadline", "too_hot", "out_of_memory"),
    *("accepted", "repeated", "late", "deadline_passed", "withdrawn", "unknown", "stale"),
    *("cohort", "abandoned", "buffer"),
    "app_failed",
    "silent",  # nothing had come by the deadline, of a service's devices
    *("waiting", "superseded", "candidate", "held_back", "canary", "rolled_back", "released", "retired"),
    "no_sum",
)
_WORDS = {"kind": KINDS, "reason": REASONS}


def _words(column: str) -> "pd.CategoricalDtype[str]":
    return pd.CategoricalDtype(list(_WORDS[column]))


class EventLog:
    """Rows since the last ``take``; ``sequence`` numbers go on."""

    def __init__(self, *, sequence: int = 0) -> None:
        self.sequence = sequence
        self._parts: list[tuple[int, dict[str, npt.ArrayLike]]] = []  # how many rows, and their columns as given

    @property
    def num_rows(self) -> int:
        """How many the next ``take`` will give."""
        return sum(count for count, _ in self._parts)

    def add(
        self,
        time_s: npt.ArrayLike,
        device: npt.ArrayLike,
        round_index: npt.ArrayLike,
        kind: str,
        *,
        seconds: npt.ArrayLike = 0.0,
        bytes: npt.ArrayLike = 0,
        metered_bytes: npt.ArrayLike = 0,
        joules: npt.ArrayLike = 0.0,
        steps: npt.ArrayLike = 0,
        reason: str | npt.NDArray[np.int8] = "",
    ) -> None:
        """Log rows of one kind.

        Args:
            time_s: ``[n]``, or one row's; so are the others, one for all or ``[n]``.
            device: dense index.
            round_index: of the round that the row belongs to.
            kind: one of ``KINDS``.
            seconds: that the row alone spent.
            bytes: likewise.
            metered_bytes: those of ``bytes`` that cost money.
            joules: likewise.
            steps: training steps of the row.
            reason: one of ``REASONS``, or indices of it.

        Raises:
            ValueError: ``kind`` or ``reason`` is none of the log's words.
        """
        times = np.atleast_1d(np.asarray(time_s, dtype=np.float64))
        given: dict[str, npt.ArrayLike] = {
            "time_s": times,
            "sequence": np.arange(self.sequence, self.sequence + len(times), dtype=np.int64),
            "device": device,
            "round": round_index,
            "kind": KINDS.index(kind),
            "seconds": seconds,
            "bytes": bytes,
            "metered_bytes": metered_bytes,
            "joules": joules,
            "steps": steps,
            "reason": REASONS.index(reason) if isinstance(reason, str) else reason,
        }
        self._parts.append((len(times), given))
        self.sequence += len(times)

    def take(self) -> pd.DataFrame:
        """The rows since the last call, as a table of ``COLUMNS``."""
        parts, self._parts = self._parts, []
        table: dict[str, Any] = {}
        for name, kind in COLUMNS.items():
            column = _column(name, kind, parts)
            table[name] = pd.Categorical.from_codes(column, dtype=_words(name)) if name in _WORDS else column
        return pd.DataFrame(table, copy=False)


def _column(name: str, kind: str, parts: Sequence[tuple[int, dict[str, npt.ArrayLike]]]) -> npt.NDArray[Any]:
    column = np.empty(sum(count for count, _ in parts), np.int8 if kind == "category" else kind)
    start = 0
    for count, given in parts:
        column[start : start + count] = given[name]
        start += count
    return column


def in_order(parts: Sequence[Path]) -> Iterator[pd.DataFrame]:
    """All rows of a log that was written in parts, by (time, sequence), the sequence numbered anew; in pieces.

    Little more than a part is held at a time.

    Args:
        parts: Parquet files of ``EventLog.take``'s tables. Only the last rows of a part may be later than the first of
            the next.
    """
    # Up to the earliest time of all later parts, rows are in their final order.
    earliest_s = [_earliest_s(part) for part in parts[1:]] + [np.inf]
    until_s = np.minimum.accumulate(earliest_s[::-1])[::-1]
    kept, first = EventLog().take(), 0
    for part, bound_s in zip(parts, until_s.tolist(), strict=True):
        # A file knows the words of its rows only.
        table = pd.read_parquet(part).astype({name: _words(name) for name in _WORDS})
        kept = _sorted(pd.concat([kept, table], ignore_index=True) if len(kept) else table)
        count = int(kept["time_s"].searchsorted(bound_s, side="left"))
        yield _numbered(kept.iloc[:count], first=first)
        kept, first = kept.iloc[count:], first + count


def _earliest_s(part: Path) -> float:
    file = pq.ParquetFile(part)
    column = file.schema_arrow.get_field_index("time_s")
    groups = [file.metadata.row_group(number).column(column) for number in range(file.metadata.num_row_groups)]
    return min((float(group.statistics.min) for group in groups if group.num_values), default=np.inf)


def _sorted(events: pd.DataFrame) -> pd.DataFrame:
    return events.take(np.lexsort((events["sequence"].to_numpy(), events["time_s"].to_numpy())))


def _numbered(events: pd.DataFrame, *, first: int) -> pd.DataFrame:
    return events.assign(sequence=np.arange(first, first + len(events), dtype=np.int64)).reset_index(drop=True)


class EventsHash:
    """SHA-256 over each column's name and the SHA-256 of its values, of a log that comes in pieces.

    Values are little-endian bytes; words are UTF-8, each ended by a line feed. No file's bytes are in it.
    """

    def __init__(self) -> None:
        self._columns = {name: hashlib.sha256() for name in COLUMNS}

    def add(self, events: pd.DataFrame) -> None:
        """The next rows, in their order."""
        for name, kind in COLUMNS.items():
            if kind == "category":
                column = events[name].astype("category").cat
                lines = np.array([f"{word}\n" for word in column.categories], dtype=object)
                self._columns[name].update("".join(lines[column.codes.to_numpy()]).encode())
            else:
                values = events[name].to_numpy(np.dtype(kind).newbyteorder("<"))
                self._columns[name].update(np.ascontiguousarray(values).data)

    def hexdigest(self) -> str:
        """Of all rows so far."""
        whole = hashlib.sha256()
        for name, column in self._columns.items():
            whole.update(name.encode() + column.digest())
        return whole.hexdigest()
