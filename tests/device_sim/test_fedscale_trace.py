"""The converter of FedScale's format, on small files made here in that format."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.device_sim.availability_trace import TraceAvailability
from pocketfleet.device_sim.fedscale_trace import read_fedscale
from pocketfleet.device_sim.trace_events import EVENTS, TraceEvents, read_trace, write_trace
from pocketfleet.errors import InputError

DAY_S = 86400


def client(*intervals: tuple[float, float], finish_time: object = 2 * DAY_S) -> dict[str, object]:
    """A client as FedScale has it."""
    return {
        "duration": sum(end_s - start_s for start_s, end_s in intervals),
        "inactive": [end_s for _, end_s in intervals],
        "finish_time": finish_time,
        "active": [start_s for start_s, _ in intervals],
        "model": "CPH1801",
    }


def fedscale_file(path: Path, table: object, protocol: int = 3) -> Path:
    path.write_bytes(pickle.dumps(table, protocol))
    return path


def rows_of(events: TraceEvents, name: str) -> list[tuple[float, str]]:
    mine = events.device == events.names.index(name)
    return [
        (float(time_s), EVENTS[event]) for time_s, event in zip(events.time_s[mine], events.event[mine], strict=True)
    ]


@pytest.mark.parametrize("protocol", range(6))
def test_intervals_become_events(protocol: int, tmp_path: Path) -> None:
    table = {1: client((0, 10), (50.5, 60)), 2: client(), "three": client((0, 200_000), finish_time=DAY_S)}
    events, left_out = read_fedscale(fedscale_file(tmp_path / "f", table, protocol))
    assert events.names == ("1", "2", "three")
    assert rows_of(events, "1") == [
        (0.0, "charge_off"),
        (0.0, "charge_on"),
        (10.0, "charge_off"),
        (50.5, "charge_on"),
        (60.0, "charge_off"),
        (172_800.0, "end"),
    ]
    assert rows_of(events, "2") == [(0.0, "charge_off"), (172_800.0, "end")]
    # Cut off where FedScale begins anew.
    assert rows_of(events, "three")[1:] == [(0.0, "charge_on"), (86_400.0, "charge_off"), (86_400.0, "end")]
    assert left_out == {}


def test_intervals_without_time_are_left_out_and_counted(tmp_path: Path) -> None:
    table = {1: client((5, 5), (7, 9), (9, 9), (DAY_S * 3, DAY_S * 4))}
    events, left_out = read_fedscale(fedscale_file(tmp_path / "f", table))
    assert rows_of(events, "1")[1:-1] == [(7.0, "charge_on"), (9.0, "charge_off")]
    assert left_out == {"intervals of no length": 1, "intervals beyond finish_time": 1}


INTERVALS = st.lists(
    st.tuples(st.integers(0, 3 * DAY_S), st.integers(0, DAY_S)).map(lambda pair: (pair[0], pair[0] + pair[1])),
    max_size=8,
)


@settings(max_examples=200, deadline=None)
@given(
    clients=st.lists(st.tuples(INTERVALS, st.integers(1, 4)), min_size=1, max_size=3),
    moments=st.lists(st.floats(0, 12 * DAY_S), min_size=10, max_size=10),
    protocol=st.integers(0, 5),
)
def test_every_interval_is_kept_and_comes_back(
    clients: list[tuple[list[tuple[int, int]], int]],
    moments: list[float],
    protocol: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("fedscale")
    table = {
        number: client(*intervals, finish_time=days * DAY_S) for number, (intervals, days) in enumerate(clients, 1)
    }
    events, _ = read_fedscale(fedscale_file(folder / "f", table, protocol))
    write_trace(events, folder / "t.csv")
    day = TraceAvailability(read_trace(folder / "t.csv"), seed=1)
    devices = np.arange(len(clients))
    edges = [float(at_s) for intervals, _ in clients for pair in intervals for at_s in pair]
    for at_s in [*moments, *edges]:
        state = day.state(devices, at_s)
        for device, name in enumerate(day.recorded(devices)):
            intervals, days = clients[int(name) - 1]
            # As FedScale finds it, but without an interval's last instant.
            within_s = at_s % (days * DAY_S)
            assert state.charging[device] == any(start_s <= within_s < end_s for start_s, end_s in intervals)
        # Not recorded.
        assert state.idle.all()
        assert state.wifi.all()


@pytest.mark.parametrize(
    ("table", "pattern"),
    [
        ([1], r"is a dictionary of clients, got a list"),
        ({}, r"is a dictionary of clients, but holds none"),
        ({1: [2]}, r"client '1' must be a dictionary with active, inactive and finish_time, got a list"),
        ({1: {}}, r"client '1', finish_time: must be seconds, 0 to 1e\+11, got a NoneType"),
        ({1: client(finish_time=0)}, r"client '1', finish_time: must be more than 0"),
        ({1: client(finish_time="9")}, r"client '1', finish_time: must be seconds, .* got '9'"),
        ({1: client(finish_time=2**20_000)}, r"client '1', finish_time: .* got a larger integer"),
        ({1: client((3, 2))}, r"client '1': an interval ends before it starts: active 3, inactive 2"),
        ({1: client((-3, 2))}, r"client '1', active: must be seconds, .* got -3"),
        ({1: client((0, float("nan")))}, r"client '1', inactive: must be seconds, .* got nan"),
        ({1: {**client((0, 1)), "active": 5}}, r"client '1', active: must be a list of seconds, got 5"),
        ({1: {**client((0, 1)), "active": []}}, r"client '1': active and inactive must be as long .* got 0, 1"),
        ({1: client(), "1": client()}, r"client '1' is there twice, as a number and as a string"),
        ({None: client()}, r"a client's name must be a string or an integer from 0 on, got a NoneType"),
        ({2**20_000: client()}, r"a client's name must be a string or an integer from 0 on, got a larger integer"),
        ({" ": client()}, r"column device: must not be empty"),
        ({1: np.arange(3)}, r"instruction GLOBAL .* is not carried out"),
    ],
)
def test_what_is_no_trace_of_fedscale_is_refused(table: object, pattern: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=pattern):
        read_fedscale(fedscale_file(tmp_path / "f", table))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read FedScale's trace .*gone"):
        read_fedscale(tmp_path / "gone")
