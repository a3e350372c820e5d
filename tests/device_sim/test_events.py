import hashlib
import struct
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.device_sim.events import COLUMNS, REASONS, EventLog, EventsHash, in_order


def ordered(events: pd.DataFrame) -> pd.DataFrame:
    """The plain way: all rows at once."""
    events = events.sort_values(["time_s", "sequence"], kind="stable", ignore_index=True)
    return events.assign(sequence=np.arange(len(events), dtype=np.int64))


def log_of_two() -> EventLog:
    log = EventLog()
    log.add(2.0, 7, 0, "upload", seconds=0.5, bytes=12, metered_bytes=5, joules=1.5, reason="link_lost")
    log.add(1.0, 3, 0, "train", steps=4)
    return log


def test_rows_are_taken_once_and_numbered_on() -> None:
    log = log_of_two()
    first = log.take()
    assert first["sequence"].tolist() == [0, 1]
    assert len(log.take()) == 0
    log.add(3.0, 1, 1, "assign")
    assert log.take()["sequence"].tolist() == [2]


def test_rows_are_ordered_by_time_then_by_logging() -> None:
    log = log_of_two()
    log.add(1.0, 9, 0, "drop", reason="deadline")
    events = ordered(log.take())
    assert events["device"].tolist() == [3, 9, 7]
    assert events["sequence"].tolist() == [0, 1, 2]


def test_an_empty_log_is_a_table_of_all_columns() -> None:
    empty = EventLog().take()
    assert list(empty.columns) == list(COLUMNS)
    assert len(empty) == 0


def events_sha256(*pieces: pd.DataFrame) -> str:
    digest = EventsHash()
    for piece in pieces:
        digest.add(piece)
    return digest.hexdigest()


def test_the_hash_is_over_names_and_values() -> None:
    events = ordered(log_of_two().take())
    # The rows in order of time: device 3 then device 7.
    digest = hashlib.sha256()
    for name, data in [
        ("time_s", struct.pack("<2d", 1.0, 2.0)),
        ("sequence", struct.pack("<2q", 0, 1)),
        ("device", struct.pack("<2q", 3, 7)),
        ("round", struct.pack("<2q", 0, 0)),
        ("kind", b"train\nupload\n"),
        ("seconds", struct.pack("<2d", 0.0, 0.5)),
        ("bytes", struct.pack("<2q", 0, 12)),
        ("metered_bytes", struct.pack("<2q", 0, 5)),
        ("joules", struct.pack("<2d", 0.0, 1.5)),
        ("steps", struct.pack("<2q", 4, 0)),
        ("reason", b"\nlink_lost\n"),
    ]:
        digest.update(name.encode() + hashlib.sha256(data).digest())
    assert events_sha256(events) == digest.hexdigest()
    assert events_sha256(events.iloc[:1], events.iloc[1:]) == digest.hexdigest()
    assert events_sha256(events.iloc[:1]) != digest.hexdigest()


def test_the_hash_survives_a_parquet_file(tmp_path: Path) -> None:
    events = ordered(log_of_two().take())
    events.to_parquet(tmp_path / "events.parquet", index=False)
    assert events_sha256(pd.read_parquet(tmp_path / "events.parquet")) == events_sha256(events)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 6).map(float), max_size=6), min_size=1, max_size=6))
def test_a_log_in_parts_comes_in_one_order(parts: list[list[float]]) -> None:
    log, files, tables = EventLog(), [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, times in enumerate(parts):
            log.add(times, number, 0, "train", steps=[int(time_s) for time_s in times])
            tables.append(log.take())
            files.append(Path(folder) / f"{number}.parquet")
            tables[-1].to_parquet(files[-1], index=False)
        pieces = list(in_order(files))
    whole = ordered(pd.concat(tables, ignore_index=True))
    pd.testing.assert_frame_equal(pd.concat(pieces, ignore_index=True), whole)
    assert events_sha256(*pieces) == events_sha256(whole)


def test_words_and_columns_are_those_of_the_log() -> None:
    log = EventLog()
    with pytest.raises(ValueError, match="not in tuple"):
        log.add(0.0, 0, 0, "sleep")
    with pytest.raises(ValueError, match="not in tuple"):
        log.add(0.0, 0, 0, "train", reason="tired")
    log.add([1.0, 2.0], [4, 5], 3, "drop", reason=np.array([REASONS.index("late"), REASONS.index("")], dtype=np.int8))
    table = log.take()
    assert table["reason"].tolist() == ["late", ""]
    assert table["round"].tolist() == [3, 3]
