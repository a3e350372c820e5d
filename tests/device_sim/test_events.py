import hashlib
import struct

import pandas as pd

from pocketfleet.device_sim.events import COLUMNS, EventLog, events_sha256, ordered


def log_of_two() -> EventLog:
    log = EventLog()
    log.add(2.0, 7, 0, "upload", seconds=0.5, bytes=12, joules=1.5, reason="link_lost")
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


def test_the_hash_is_over_names_and_little_endian_bytes() -> None:
    events = ordered(log_of_two().take())
    # The rows in order of time: device 3 then device 7.
    digest = hashlib.sha256()
    for name, data in [
        ("time_s", struct.pack("<2d", 1.0, 2.0)),
        ("sequence", struct.pack("<2q", 0, 1)),
        ("device", struct.pack("<2q", 3, 7)),
        ("round", struct.pack("<2q", 0, 0)),
        ("kind", b"train\nupload"),
        ("seconds", struct.pack("<2d", 0.0, 0.5)),
        ("bytes", struct.pack("<2q", 0, 12)),
        ("joules", struct.pack("<2d", 0.0, 1.5)),
        ("steps", struct.pack("<2q", 4, 0)),
        ("reason", b"\nlink_lost"),
    ]:
        digest.update(name.encode() + data)
    assert events_sha256(events) == digest.hexdigest()


def test_the_hash_survives_a_parquet_file(tmp_path) -> None:
    events = ordered(log_of_two().take())
    events.to_parquet(tmp_path / "events.parquet", index=False)
    assert events_sha256(pd.read_parquet(tmp_path / "events.parquet")) == events_sha256(events)
