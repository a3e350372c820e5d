"""What happened to which device when: a log of rows, its hash, and the totals of rounds.

Kinds of rows (``seconds``, ``bytes`` and ``joules`` are what this row alone spent; ``device`` is -1 for the server's):

1. ``ineligible``: a device that would be asked may not train; logged when ``reason``, the first of them, changes.
2. ``assign``: a device was given work.
3. ``download``, ``train``, ``upload``: a stage of an attempt ended; ``reason`` says what cut it short, if anything.
4. ``report``: an update arrived; ``reason`` is ``accepted``, or why it was rejected.
5. ``drop``: an attempt ended without a report, ``reason`` says why.
6. ``close``: a round ended; ``reason`` is ``cohort``, ``deadline`` or ``abandoned``.

Rows are ordered by time; of equal times the one logged first comes first.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

__all__ = ["COLUMNS", "EventLog", "events_sha256", "ordered"]

# Column names and types of the log; ``steps`` counts training steps of the row.
COLUMNS = {
    "time_s": "float64",
    "sequence": "int64",
    "device": "int64",
    "round": "int64",
    "kind": "object",
    "seconds": "float64",
    "bytes": "int64",
    "joules": "float64",
    "steps": "int64",
    "reason": "object",
}
SERVER = -1


class EventLog:
    """Rows since the last ``take``; ``sequence`` numbers go on."""

    def __init__(self, *, sequence: int = 0) -> None:
        self.sequence = sequence
        self._rows: list[tuple[float, int, int, int, str, float, int, float, int, str]] = []

    def add(
        self,
        time_s: float,
        device: int,
        round_index: int,
        kind: str,
        *,
        seconds: float = 0.0,
        bytes: int = 0,
        joules: float = 0.0,
        steps: int = 0,
        reason: str = "",
    ) -> None:
        """Log one row."""
        self._rows.append((time_s, self.sequence, device, round_index, kind, seconds, bytes, joules, steps, reason))
        self.sequence += 1

    def take(self) -> pd.DataFrame:
        """The rows since the last call, as a table of ``COLUMNS``."""
        rows, self._rows = self._rows, []
        return pd.DataFrame(
            {
                name: pd.Series([row[index] for row in rows], dtype=kind)
                for index, (name, kind) in enumerate(COLUMNS.items())
            }
        )


def ordered(events: pd.DataFrame) -> pd.DataFrame:
    """Rows by (time, sequence), the sequence numbered anew."""
    events = events.sort_values(["time_s", "sequence"], kind="stable", ignore_index=True)
    return events.assign(sequence=np.arange(len(events), dtype=np.int64))


def events_sha256(events: pd.DataFrame) -> str:
    """SHA-256 over each column's name and little-endian bytes (words: UTF-8, one a line), not over a file."""
    digest = hashlib.sha256()
    for name, kind in COLUMNS.items():
        digest.update(name.encode())
        if kind == "object":
            words: Sequence[str] = events[name].tolist()
            digest.update("\n".join(words).encode())
        else:
            digest.update(events[name].to_numpy(np.dtype(kind).newbyteorder("<")).tobytes())
    return digest.hexdigest()
