"""A recorded trace in the long format: which device, when, what happened; read, checked and written.

Rules:

1. A trace is a CSV file (UTF-8, with a header) or a Parquet file with the columns ``device`` (any string or integer),
   ``time_s`` (seconds on the devices' own clock, 0 is a midnight) and ``event`` (a word of ``EVENTS``). Further columns
   are left alone.
2. Rows stand in any order. Of events at the same time on the same device the later row happens later.
3. ``end`` says that a device's recording goes on until then: no event of that device comes after it. Where a device
   has several, the last counts. A device needs one other event.
4. What cannot be right is refused with the row's number, counted as a spreadsheet does: a CSV file's header is row 1,
   and so is the first row of a Parquet file.

What the events mean for a device's state is in ``availability_trace``.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from pocketfleet.errors import InputError

__all__ = ["EVENTS", "MOST_S", "TRACE_SUFFIXES", "TraceEvents", "read_trace", "write_trace"]

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

# The words of a trace. The first six come in pairs, a condition each: its number is the index halved.
EVENTS = ("screen_on", "screen_off", "charge_on", "charge_off", "wifi_on", "wifi_off", "end")
_END = EVENTS.index("end")
_COLUMNS = ("device", "time_s", "event")
TRACE_SUFFIXES = (".csv", ".parquet")
# Three thousand years; a larger number is no time in seconds, but perhaps one in milliseconds since 1970 (1.6e12).
MOST_S = 1e11


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEvents:
    """Recorded events, a row each, in the order of their file.

    Attributes:
        names: of the devices, ``[devices]``, sorted.
        device: index into ``names``, ``[events]``.
        time_s: seconds, 0 or more, ``[events]``.
        event: index into ``EVENTS``, ``[events]``.
    """

    names: tuple[str, ...]
    device: Int64s
    time_s: Floats
    event: Int64s

    @classmethod
    def of_table(cls, table: pd.DataFrame, *, name: str, first_row: int = 1) -> Self:
        """Checked events of a table with the three columns.

        Args:
            table: its index counts rows from 0; gaps are rows that were left out.
            name: what errors call it.
            first_row: the number of the row with index 0.

        Raises:
            InputError: a row, or a device, is not as the module's rules say.
        """
        missing = [column for column in _COLUMNS if column not in table.columns]
        if missing:
            raise InputError(
                f"{name}: a trace has the columns {', '.join(_COLUMNS)}; {' and '.join(missing)} is not there"
            )
        if table.empty:
            raise InputError(f"{name}: has no events; a trace has one row an event, with device, time_s, event")
        check = _Check(name=name, row=table.index.to_numpy() + first_row)
        device, names = check.words(table["device"], "device")
        word, words = check.words(table["event"], "event")
        events = cls(names=names, device=device, time_s=check.times(table["time_s"]), event=check.events(word, words))
        check.ends(events)
        return events

    @classmethod
    def of_devices(cls, devices: Mapping[str, Sequence[tuple[float, str]]], *, name: str) -> Self:
        """Checked events of devices by name, each a list of time and word in the order in which they happened.

        Raises:
            InputError: a device or an event is not as the module's rules say.
        """
        rows = ((device, time_s, word) for device, events in devices.items() for time_s, word in events)
        return cls.of_table(pd.DataFrame(rows, columns=list(_COLUMNS)), name=name)

    def table(self) -> pd.DataFrame:
        """The three columns, rows as they are."""
        return pd.DataFrame(
            {
                "device": pd.Categorical.from_codes(self.device, categories=pd.Index(self.names)),
                "time_s": self.time_s,
                "event": pd.Categorical.from_codes(self.event, categories=pd.Index(EVENTS)),
            }
        )


def read_trace(path: str | Path) -> TraceEvents:
    """The events of a CSV or Parquet file.

    Raises:
        InputError: it cannot be read, or does not hold what the module's rules say.
    """
    path = Path(path)
    suffix = _suffix(path)
    try:
        if suffix == ".parquet":
            table = pa.parquet.ParquetFile(path)
            held = [column for column in _COLUMNS if column in table.schema_arrow.names]
            frame = table.read(columns=held).to_pandas()
            return TraceEvents.of_table(frame.reset_index(drop=True), name=str(path))
        frame = pd.read_csv(
            path,
            dtype=str,
            usecols=lambda column: column in _COLUMNS,
            keep_default_na=False,
            skip_blank_lines=False,
            index_col=False,
            encoding="utf-8-sig",
        )
    except pd.errors.EmptyDataError as exc:
        raise InputError(f"{path}: is empty; a trace has a header with the columns device, time_s, event") from exc
    except (OSError, ValueError, pa.ArrowException) as exc:
        raise InputError(f"cannot read the trace {path}: {' '.join(str(exc).split())}") from exc
    frame = frame.fillna("")
    return TraceEvents.of_table(frame[(frame != "").any(axis=1)], name=str(path), first_row=2)


def write_trace(events: TraceEvents, path: str | Path) -> None:
    """Write events to a CSV or Parquet file, by its name's ending; whole or not at all.

    Raises:
        InputError: the ending is another, or the file cannot be written.
    """
    path = Path(path)
    suffix = _suffix(path)
    part = path.with_name(f".{path.name}.part")
    try:
        if suffix == ".parquet":
            pa.parquet.write_table(pa.Table.from_pandas(events.table(), preserve_index=False), part)
        else:
            # By itself pandas does not quote a carriage return, which ends a row.
            returns = any("\r" in name for name in events.names)
            events.table().to_csv(
                part,
                index=False,
                lineterminator="\n",
                quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL,
            )
        part.replace(path)
    except (OSError, ValueError, pa.ArrowException) as exc:
        raise InputError(f"cannot write the trace {path}: {' '.join(str(exc).split())}") from exc
    finally:
        part.unlink(missing_ok=True)


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in TRACE_SUFFIXES:
        raise InputError(f"a trace's file name ends in {' or '.join(TRACE_SUFFIXES)}, got {str(path)!r}")
    return suffix


@dataclass(frozen=True, slots=True, kw_only=True)
class _Check:
    """What is wrong with a table, told with its name and the row's number."""

    name: str
    row: Int64s

    def refuse(self, wrong: npt.NDArray[np.bool_], column: str, allowed: str, got: Callable[[int], object]) -> None:
        """Name the first row that is wrong, if one is, and what it holds."""
        if wrong.any():
            first = int(wrong.argmax())
            cell = str(got(first))[:40]
            raise InputError(f"{self.name}, row {self.row[first]}, column {column}: {allowed}, got {cell!r}")

    def words(self, cells: "pd.Series[Any]", column: str) -> tuple[Int64s, tuple[str, ...]]:
        """A column as indices into its sorted, distinct texts."""
        code, found = pd.factorize(cells)
        texts = np.array([str(cell).strip() for cell in found], dtype=object)
        # Missing cells have the code -1: the last.
        self.refuse(np.append(texts == "", True)[code], column, "must not be empty", lambda _row: "")
        wrong = np.array([not isinstance(cell, (str, int, np.integer)) for cell in found], dtype=np.bool_)[code]
        self.refuse(wrong, column, "must be a string or an integer", lambda row: cells.iloc[row])
        distinct, place = np.unique(texts, return_inverse=True)
        return place[code].astype(np.int64), tuple(distinct)

    def times(self, cells: "pd.Series[Any]") -> Floats:
        """Finite seconds."""
        if pd.api.types.is_datetime64_any_dtype(cells) or pd.api.types.is_timedelta64_dtype(cells):
            raise InputError(f"{self.name}, column time_s: must be numbers, seconds since a midnight, got dates")
        times = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        wrong = ~(np.isfinite(times) & (times >= 0.0) & (times <= MOST_S))
        allowed = f"must be a number of seconds, 0 to {MOST_S:.0e}"
        self.refuse(wrong, "time_s", allowed, lambda row: cells.iloc[row])
        return times

    def events(self, word: Int64s, words: tuple[str, ...]) -> Int64s:
        """Indices into ``EVENTS``."""
        place = np.array([EVENTS.index(text) if text in EVENTS else -1 for text in words], dtype=np.int64)
        event: Int64s = place[word]
        self.refuse(event < 0, "event", f"must be one of {', '.join(EVENTS)}", lambda row: words[word[row]])
        return event

    def ends(self, events: TraceEvents) -> None:
        """Rule 3."""
        is_end = events.event == _END
        end_s = np.full(len(events.names), -np.inf)
        np.maximum.at(end_s, events.device[is_end], events.time_s[is_end])
        late = ~is_end & (end_s[events.device] > -np.inf) & (events.time_s > end_s[events.device])
        self.refuse(late, "time_s", "must not be after the device's end", lambda row: events.time_s[row])
        happens = np.zeros(len(events.names), dtype=np.bool_)
        happens[events.device[~is_end]] = True
        bare = ~happens[events.device]
        needs = "the device needs another event than end, such as screen_off"
        self.refuse(bare, "device", needs, lambda row: events.names[events.device[row]])
