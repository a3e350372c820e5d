from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.device_sim.trace_events import EVENTS, TraceEvents, read_trace, write_trace
from pocketfleet.errors import InputError

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(
    lambda name: name == name.strip()
)
ROWS = st.lists(st.tuples(NAMES, st.floats(0.0, 1e11), st.sampled_from(EVENTS[:-1])), min_size=1, max_size=20)


def table(rows: list[tuple[object, float, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["device", "time_s", "event"])


def rows_of(events: TraceEvents) -> list[tuple[str, float, str]]:
    return [
        (events.names[device], float(time_s), EVENTS[event])
        for device, time_s, event in zip(events.device, events.time_s, events.event, strict=True)
    ]


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, suffix=st.sampled_from([".csv", ".parquet"]))
def test_what_is_written_is_read(
    rows: list[tuple[str, float, str]], suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("trace") / f"trace{suffix}"
    events = TraceEvents.of_table(table(rows), name="rows")
    assert rows_of(events) == rows
    write_trace(events, path)
    assert rows_of(read_trace(path)) == rows
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def csv(tmp_path: Path, *lines: str, name: str = "t.csv", encoding: str = "utf-8") -> Path:
    path = tmp_path / name
    path.write_text("\n".join(lines), encoding=encoding)
    return path


def test_a_csv_as_people_write_them(tmp_path: Path) -> None:
    # A byte order mark, other columns, another order, blank lines, spaces, numbers and NA as names.
    lines = ("note,event,device,time_s", "x, charge_on ,007,5", "", 'y,charge_off,NA,1e3,"more"', "", "")
    events = read_trace(csv(tmp_path, *lines, encoding="utf-8-sig"))
    assert rows_of(events) == [("007", 5.0, "charge_on"), ("NA", 1000.0, "charge_off")]


def test_a_parquet_file_of_integers_and_categories(tmp_path: Path) -> None:
    frame = pd.DataFrame({"device": [7, 7, 12], "time_s": [5, 6, 7], "event": ["charge_on", "charge_off", "end"]})
    frame["event"] = frame["event"].astype("category")
    frame.loc[2, "event"] = "charge_on"
    frame.to_parquet(tmp_path / "t.PARQUET")
    assert rows_of(read_trace(tmp_path / "t.PARQUET")) == [
        ("7", 5.0, "charge_on"),
        ("7", 6.0, "charge_off"),
        ("12", 7.0, "charge_on"),
    ]


HEADER = "device,time_s,event"
WRONG = {
    "word": (HEADER, "a,1,charge_on", "", "a,2,charging", r"row 4, column event: must be one of .*, got 'charging'"),
    "no word": (HEADER, "a,1", r"row 2, column event: must not be empty"),
    "no device": (HEADER, "a,1,charge_on", " ,1,charge_on", r"row 3, column device: must not be empty"),
    "no time": (HEADER, "a,,charge_on", r"row 2, column time_s: must be a number of seconds, .* got ''"),
    "negative": (HEADER, "a,-0.5,charge_on", r"row 2, column time_s: .*0 to 1e\+11, got '-0.5'"),
    "infinite": (HEADER, "a,1,charge_on", "a,inf,charge_on", r"row 3, column time_s: .* got 'inf'"),
    "nan": (HEADER, "a,nan,charge_on", r"row 2, column time_s: .* got 'nan'"),
    "milliseconds": (HEADER, "a,1580169600000,charge_on", r"row 2, column time_s: .* got '1580169600000'"),
    "date": (HEADER, "a,2020-01-28,charge_on", r"row 2, column time_s: .* got '2020-01-28'"),
    "column": ("device,seconds,event", "a,1,charge_on", r"columns device, time_s, event; time_s is not there"),
    "columns": ("a,b", "1,2", r"device and time_s and event is not there"),
    "only a header": (HEADER, r"has no events"),
    "nothing": (r"is empty; a trace has a header with the columns device, time_s, event",),
    "after its end": (
        HEADER,
        "a,5,end",
        "a,1,wifi_on",
        "a,6,wifi_off",
        r"row 4, .* not be after the device's end",
    ),
    "only an end": (HEADER, "b,1,wifi_on", "a,5,end", r"row 3, column device: the device needs another event .* 'a'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_right_is_refused_with_its_row(case: str, tmp_path: Path) -> None:
    *lines, pattern = WRONG[case]
    with pytest.raises(InputError, match=pattern) as caught:
        read_trace(csv(tmp_path, *lines))
    assert "t.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_parquet_file_is_checked_likewise(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    cases = [
        ({"device": [1, 2], "time_s": [1.0, -1.0], "event": ["wifi_on"] * 2}, r"row 2, column time_s"),
        ({"device": [1, None], "time_s": [1.0, 1.0], "event": ["wifi_on"] * 2}, r"row 2, column device: must not be"),
        ({"device": [1.5, 2], "time_s": [1.0, 1.0], "event": ["wifi_on"] * 2}, r"row 1, .* string or an integer"),
        ({"device": [1, 2], "time_s": [1.0, None], "event": ["wifi_on"] * 2}, r"row 2, column time_s"),
        ({"device": [1, 2], "time_s": [1.0, 1.0], "event": [None, "wifi_on"]}, r"row 1, column event: must not be"),
        ({"device": [1], "time_s": [pd.Timestamp(0)], "event": ["wifi_on"]}, r"seconds since a midnight, got dates"),
        ({"device": [1], "event": ["wifi_on"]}, r"time_s is not there"),
    ]
    for columns, pattern in cases:
        pd.DataFrame(columns).to_parquet(path)
        with pytest.raises(InputError, match=pattern):
            read_trace(path)


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the trace .*gone.csv"):
        read_trace(tmp_path / "gone.csv")
    with pytest.raises(InputError, match=r"cannot read the trace .*gone.parquet"):
        read_trace(tmp_path / "gone.parquet")
    with pytest.raises(InputError, match=r"ends in .csv or .parquet, got '.*t.json'"):
        read_trace(tmp_path / "t.json")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no more")
    (tmp_path / "t.csv").write_bytes(b"device,time_s,event\n\xff,1,wifi_on\n")
    (tmp_path / "d.csv").mkdir()
    for name in ("t.parquet", "t.csv", "d.csv"):
        with pytest.raises(InputError, match=rf"cannot read the trace .*{name}") as caught:
            read_trace(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_trace_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    events = TraceEvents(
        names=("\ud800",), device=np.zeros(1, np.int64), time_s=np.ones(1), event=np.zeros(1, np.int64)
    )
    for name in ("t.csv", "t.parquet"):
        with pytest.raises(InputError, match=rf"cannot write the trace .*{name}"):
            write_trace(events, tmp_path / name)
    with pytest.raises(InputError, match="cannot write the trace"):
        write_trace(events, tmp_path / "nowhere" / "t.csv")
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=80), suffix=st.sampled_from([".csv", ".parquet"]))
def test_any_bytes_are_read_or_refused(data: bytes, suffix: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("trace") / f"trace{suffix}"
    path.write_bytes(b"device,time_s,event\n" * (suffix == ".csv") + data)
    with pytest.raises(InputError):
        read_trace(path)


def test_columns_are_as_long_as_rows_of_any_number() -> None:
    names = [f"d{number % 100}" for number in range(10_000)]
    events = TraceEvents.of_table(table([(name, 1.0, "wifi_on") for name in names]), name="many")
    assert len(events.names) == 100
    assert isinstance(events.table(), pd.DataFrame)
    assert pa.Table.from_pandas(events.table()).num_rows == 10_000
