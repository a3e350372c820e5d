"""The converter of FLASH's format, on small files made here in that format."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.device_sim.availability_trace import TraceAvailability
from pocketfleet.device_sim.flash_trace import read_flash
from pocketfleet.device_sim.trace_events import EVENTS, TraceEvents, read_trace, write_trace
from pocketfleet.errors import InputError

FIRST_DAY = datetime(2020, 1, 28)
STATES = [
    *("battery_charged_on", "battery_charged_off", "screen_on", "screen_off", "screen_lock", "screen_unlock"),
    *("wifi", "Unknown", "2G", "3G", "4G", "5G", "57.0%", "battery_low", "phone_off"),
]


def line(seconds: float, state: str) -> str:
    return f"{FIRST_DAY + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S}\t{state}"


def flash_file(path: Path, devices: dict[str, list[str]]) -> Path:
    """As FLASH has it: an object a device, by number, its lines as one text."""
    table = {
        name: {"guid": f"guid-{name}", "model": "Redmi Note 8", "messages": "\n".join(lines) + "\n"}
        for name, lines in devices.items()
    }
    path.write_text(json.dumps(table))
    return path


def rows_of(events: TraceEvents, name: str) -> list[tuple[float, str]]:
    mine = events.device == events.names.index(name)
    return [
        (float(time_s), EVENTS[event]) for time_s, event in zip(events.time_s[mine], events.event[mine], strict=True)
    ]


def test_each_state_becomes_its_event(tmp_path: Path) -> None:
    lines = [
        *(line(3600, "screen_on"), line(3601, "screen_unlock"), line(3700, "58.0%"), line(3800, "screen_off")),
        *(line(3805, "screen_lock"), line(3900, "battery_charged_on"), line(4000, "wifi"), line(4100, "4G")),
        *(line(5000, "battery_charged_off"), line(5100, "UNKNOWN"), line(90_000, "59.0%")),
    ]
    events, left_out = read_flash(flash_file(tmp_path / "f.json", {"0": lines}))
    assert rows_of(events, "0") == [
        (3600.0, "screen_on"),
        (3800.0, "screen_off"),
        (3900.0, "charge_on"),
        (4000.0, "wifi_on"),
        (4100.0, "wifi_off"),
        (5000.0, "charge_off"),
        (5100.0, "wifi_off"),
        (90_000.0, "end"),
    ]
    assert left_out == {"battery levels": 2}


def test_a_locked_phone_is_idle_though_its_screen_shines(tmp_path: Path) -> None:
    # A message lights the screen of a locked phone; then it is unlocked; then only its screen goes off.
    lines = [line(at, state) for at, state in enumerate(["screen_lock", "screen_on", "screen_unlock", "screen_off"])]
    events, _ = read_flash(flash_file(tmp_path / "f.json", {"0": lines}))
    assert rows_of(events, "0") == [(0.0, "screen_off"), (2.0, "screen_on"), (3.0, "screen_off"), (3.0, "end")]


def test_time_0_is_midnight_of_the_files_first_day(tmp_path: Path) -> None:
    path = flash_file(tmp_path / "f.json", {"0": [line(90_000, "wifi")], "1": [line(60, "wifi"), line(5, "4G")]})
    events, _ = read_flash(path)
    assert rows_of(events, "0")[0] == (90_000.0, "wifi_on")
    # Lines out of order are put in order.
    assert rows_of(events, "1") == [(5.0, "wifi_off"), (60.0, "wifi_on"), (60.0, "end")]


def test_what_is_no_state_is_left_out_and_counted(tmp_path: Path) -> None:
    devices = {
        "0": [line(1, "wifi"), "2020-01-28 00:00:02 4G", "rubbish", "2020-13-01 00:00:00\twifi", line(3, "phone_off")],
        "1": [line(1, "31.0%"), ""],
        "2": [],
    }
    events, left_out = read_flash(flash_file(tmp_path / "f.json", devices))
    assert events.names == ("0",)
    assert rows_of(events, "0") == [(1.0, "wifi_on"), (3.0, "end")]
    assert left_out == {
        "lines that are no time and state": 3,
        "states 'phone_off'": 1,
        "battery levels": 1,
        "devices without a state": 2,
    }


LINES = st.lists(st.tuples(st.integers(0, 4 * 86400), st.sampled_from(STATES)), min_size=1, max_size=30)


def slow_states(lines: list[tuple[int, str]], at_s: float) -> dict[str, bool | None]:
    """What the lines up to a time say, walked one by one; ``None`` where none says anything."""
    off = locked = charging = wifi = None
    for seconds, state in sorted(lines, key=lambda pair: pair[0]):
        if seconds > at_s:
            break
        if state.startswith("battery_charged"):
            charging = state.endswith("_on")
        elif state in {"screen_on", "screen_off"}:
            off = state == "screen_off"
        elif state in {"screen_lock", "screen_unlock"}:
            locked = state == "screen_lock"
        elif state in {"wifi", "Unknown"} or state.endswith("G"):
            wifi = state == "wifi"
    idle = None if off is None and locked is None else bool(off or locked)
    return {"idle": idle, "charging": charging, "wifi": wifi}


@settings(max_examples=200, deadline=None)
@given(lines=LINES, moments=st.lists(st.floats(0, 5 * 86400), min_size=10, max_size=10))
def test_every_interval_is_kept(
    lines: list[tuple[int, str]], moments: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("flash")
    # The first line of all makes the day count from FIRST_DAY, and the device one with a state.
    written = [line(0, "battery_charged_off"), *(line(*pair) for pair in lines)]
    events, _ = read_flash(flash_file(folder / "f.json", {"0": written}))
    write_trace(events, folder / "t.parquet")
    day = TraceAvailability(read_trace(folder / "t.parquet"), seed=1, repeat="never")
    lines = [(0, "battery_charged_off"), *lines]
    for at_s in [*moments, *(seconds for seconds, _ in lines)]:
        state = day.state(np.array([0]), float(at_s))
        for condition, holds in slow_states(lines, at_s).items():
            if holds is not None:
                assert bool(getattr(state, condition)[0]) == holds


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("[1", r"cannot read FLASH's trace .*f.json: .*line 1"),
        ("[" * 100_000, r"cannot read FLASH's trace .*f.json: .*recursion"),
        ("[]", r"is a JSON object of devices, got a list"),
        ('{"0": {"guid": "x"}}', r"device '0' must be an object with messages"),
        ('{"0": "x"}', r"device '0' must be an object with messages"),
        ('{"0": {"messages": ["x"]}}', r"device '0' must be an object with messages"),
        ('{"0": {"messages": ""}, " 0": {"messages": ""}}', r"device ' 0' is there twice"),
        ("{}", r"no device has a state that FLASH's traces have"),
        ('{"0": {"messages": "2020-01-28 00:00:01\\t5.0%"}}', r"no device has a state"),
    ],
)
def test_what_is_no_trace_of_flash_is_refused(text: str, pattern: str, tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(InputError, match=pattern):
        read_flash(tmp_path / "f.json")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read FLASH's trace .*gone"):
        read_flash(tmp_path / "gone")
