import math
from time import perf_counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pocketfleet.device_sim.availability import Availability
from pocketfleet.device_sim.availability_trace import TraceAvailability
from pocketfleet.device_sim.day_changes import DayState, walked_changes
from pocketfleet.device_sim.trace_events import EVENTS, TraceEvents
from tests.device_sim.slow_trace import SlowDevice

DAY_S = 86400.0
CONDITIONS = ("idle", "charging", "wifi")
WORDS = {"idle": {"screen_on", "screen_off"}, "charging": {"charge_on", "charge_off"}, "wifi": {"wifi_on", "wifi_off"}}

# Few distinct times, so that events meet; midnights; and any.
TIMES = st.one_of(
    st.integers(0, 6).map(lambda hours: hours * 3600.0),
    st.integers(0, 3).map(lambda days: days * DAY_S),
    st.floats(0.0, 4 * DAY_S),
)
ROWS = st.lists(st.tuples(st.sampled_from(["ab", "c"]), TIMES, st.sampled_from(EVENTS[:-1])), min_size=1)
REPEATS = st.sampled_from(["days", "recording", "never"])
SHIFTS = st.sampled_from([0.0, 8 * 3600.0, -8 * 3600.0, 2 * DAY_S, -0.3])
NOWS = st.one_of(TIMES, st.floats(0.0, 40 * DAY_S), st.just(0.0), st.floats(0.0, 1e-9))


def trace(rows: list[tuple[str, float, str]]) -> TraceEvents:
    return TraceEvents.of_table(pd.DataFrame(rows, columns=["device", "time_s", "event"]), name="trace")


@st.composite
def traces(draw: st.DrawFn) -> list[tuple[str, float, str]]:
    """Rows of up to three devices, some with an end after all their events."""
    rows = draw(ROWS)
    for name in sorted({row[0] for row in rows}):
        if draw(st.booleans()):
            last_s = max(row[1] for row in rows if row[0] == name)
            rows.insert(draw(st.integers(0, len(rows))), (name, last_s + draw(TIMES), "end"))
    return rows


def flags(state: DayState, row: int) -> dict[str, bool]:
    return {condition: bool(getattr(state, condition)[row]) for condition in CONDITIONS}


@settings(max_examples=400, deadline=None)
@given(traces(), REPEATS, SHIFTS, st.integers(0, 2**40), NOWS)
def test_it_is_what_walking_the_events_one_by_one_gives(
    rows: list[tuple[str, float, str]], repeat: str, shift_s: float, seed: int, now_s: float
) -> None:
    day = TraceAvailability(trace(rows), seed=seed, repeat=repeat, shift_s=shift_s)
    recorded = {condition for condition in CONDITIONS if {row[2] for row in rows} & WORDS[condition]}
    devices = np.arange(4)
    state, change_s = day.state(devices, now_s), day.next_change_s(devices, now_s)
    for device, name in enumerate(day.recorded(devices)):
        events = [row[1:] for row in rows if row[0] == name]
        slow = SlowDevice(events, recorded=recorded, repeat=repeat, shift_s=shift_s)
        assert flags(state, device) == slow.state(now_s)
        assert change_s[device] == slow.next_change_s(now_s)


@settings(max_examples=400, deadline=None)
@given(traces(), REPEATS, SHIFTS, NOWS)
def test_the_state_stays_until_the_next_change_and_differs_at_it(
    rows: list[tuple[str, float, str]], repeat: str, shift_s: float, now_s: float
) -> None:
    day: Availability = TraceAvailability(trace(rows), seed=1, repeat=repeat, shift_s=shift_s)
    devices = np.arange(3)
    now, change_s = day.state(devices, now_s), day.next_change_s(devices, now_s)
    assert np.all(change_s > now_s)
    until_s = np.where(np.isfinite(change_s), change_s, now_s + 30 * DAY_S)
    for between_s in (
        *(now_s + share * (until_s - now_s) for share in (0.01, 0.3, 0.5, 0.7, 0.99)),
        np.nextafter(until_s, 0.0),
    ):
        # The share of a tiny step may be rounded up to its end.
        inside = (between_s < until_s) & (between_s >= now_s)
        for condition in CONDITIONS:
            at = getattr(day.state(devices, between_s), condition)
            np.testing.assert_array_equal(at[inside], getattr(now, condition)[inside])
    then = day.state(devices, until_s)
    assert np.all((then.code != now.code) | ~np.isfinite(change_s))


@settings(max_examples=300, deadline=None)
@given(traces(), REPEATS, SHIFTS, st.lists(st.tuples(NOWS, TIMES), min_size=4, max_size=4))
def test_all_changes_of_a_while_are_those_found_one_after_another(
    rows: list[tuple[str, float, str]], repeat: str, shift_s: float, whiles: list[tuple[float, float]]
) -> None:
    day = TraceAvailability(trace(rows), seed=1, repeat=repeat, shift_s=shift_s)
    devices, from_s = np.arange(4), np.array([start_s for start_s, _ in whiles])
    # Half of them end just at a change.
    until_s = from_s + [length_s for _, length_s in whiles]
    until_s[::2] = np.minimum(day.next_change_s(devices, until_s), until_s + DAY_S)[::2]
    fast, slow = day.changes(devices, from_s, until_s), walked_changes(day, devices, from_s, until_s)
    np.testing.assert_array_equal(fast.time_s, slow.time_s)
    np.testing.assert_array_equal(fast.code, slow.code)


@settings(max_examples=100, deadline=None)
@given(traces(), st.integers(0, 2**40), st.integers(1, 40), NOWS)
def test_a_further_device_changes_no_other(
    rows: list[tuple[str, float, str]], seed: int, count: int, now_s: float
) -> None:
    day = TraceAvailability(trace(rows), seed=seed)
    few, more = np.arange(count), np.arange(count + 1)
    np.testing.assert_array_equal(day.state(few, now_s).code, day.state(more, now_s).code[:count])
    np.testing.assert_array_equal(day.next_change_s(few, now_s), day.next_change_s(more, now_s)[:count])
    np.testing.assert_array_equal(day.recorded(few), day.recorded(more)[:count])


@settings(max_examples=100, deadline=None)
@given(traces(), st.randoms(use_true_random=False), NOWS)
def test_the_order_of_rows_at_different_times_is_nothing(
    rows: list[tuple[str, float, str]], order: "object", now_s: float
) -> None:
    # On one device, events within a tick of 1/1024 s count as at the same time.
    assume(len({(name, round(time_s * 1024)) for name, time_s, _ in rows}) == len(rows))
    shuffled = rows.copy()
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    day, other = TraceAvailability(trace(rows), seed=3), TraceAvailability(trace(shuffled), seed=3)
    devices = np.arange(5)
    np.testing.assert_array_equal(day.state(devices, now_s).code, other.state(devices, now_s).code)
    np.testing.assert_array_equal(day.next_change_s(devices, now_s), other.next_change_s(devices, now_s))


def one(*rows: tuple[float, str], other: tuple[float, str] | None = None, **settings: object) -> TraceAvailability:
    """A trace of one device; ``other`` is an event of a second one, which seed 1 deals to device 1."""
    table = [("a", *row) for row in rows] + ([("b", *other)] if other else [])
    day = TraceAvailability(trace(table), seed=1, **settings)
    assert day.recorded([0])[0] == "a"
    return day


def at(day: TraceAvailability, condition: str, *times_s: float) -> list[bool]:
    return [bool(getattr(day.state([0], time_s), condition)[0]) for time_s in times_s]


def test_a_night_on_the_charger_comes_back_every_day() -> None:
    day = one((22 * 3600.0, "charge_on"), (DAY_S + 7 * 3600.0, "charge_off"))
    # The recording covers two days: so does its turn, and the second evening has no charging.
    assert at(day, "charging", 0.0, 80_000.0, DAY_S, DAY_S + 25_199.0, DAY_S + 25_200.0) == [0, 1, 1, 1, 0]
    assert at(day, "charging", 2 * DAY_S + 80_000.0, 3 * DAY_S + 80_000.0) == [1, 0]
    assert day.next_change_s([0], 2 * DAY_S)[0] == 2 * DAY_S + 22 * 3600.0


def test_an_end_makes_the_recording_longer() -> None:
    day = one((10.0, "charge_on"), (20.0, "charge_off"), (3 * DAY_S, "end"))
    assert at(day, "charging", 15.0, DAY_S + 15.0, 2 * DAY_S + 15.0, 3 * DAY_S + 15.0) == [1, 0, 0, 1]


def test_recordings_of_later_days_reach_back_to_time_0() -> None:
    # Recorded on days 3 and 4: day 0 is the day before day 1, which repeats day 3.
    day = one((3 * DAY_S + 100.0, "wifi_on"), (4 * DAY_S + 500.0, "wifi_off"))
    assert at(day, "wifi", 0.0, 499.0, 500.0, DAY_S + 99.0, DAY_S + 100.0) == [1, 1, 0, 0, 1]


def test_a_recording_may_repeat_without_regard_to_the_hour() -> None:
    day = one((10.0, "charge_on"), (13.0, "charge_off"), (20.0, "end"), repeat="recording")
    # Ten seconds from the first event on: three of charging, seven without.
    assert at(day, "charging", 0.0, 2.5, 3.0, 9.0, 10.0, 12.0, 13.0, 1_000_000.0) == [1, 1, 0, 0, 1, 1, 0, 1]


def test_a_recording_may_be_over() -> None:
    day = one((10.0, "charge_on"), (13.0, "charge_off"), (20.0, "charge_on"), repeat="never")
    assert at(day, "charging", 0.0, 10.0, 13.0, 20.0, 1e9) == [0, 1, 0, 1, 1]
    assert day.next_change_s([0], 20.0)[0] == math.inf
    shifted = one((10.0, "charge_on"), (13.0, "charge_off"), repeat="never", shift_s=-11.0)
    assert at(shifted, "charging", 0.0, 2.0) == [1, 0]


def test_a_shift_moves_every_event() -> None:
    day = one((8 * 3600.0, "charge_on"), (9 * 3600.0, "charge_off"), shift_s=-8 * 3600.0)
    assert at(day, "charging", 0.0, 3599.0, 3600.0, DAY_S) == [1, 1, 0, 1]


def test_a_first_event_is_a_change() -> None:
    assert at(one((10.0, "screen_on"), repeat="never"), "idle", 9.0, 10.0) == [1, 0]
    assert at(one((10.0, "screen_off"), repeat="never"), "idle", 9.0, 10.0) == [0, 1]
    assert at(one((10.0, "wifi_off"), repeat="never"), "wifi", 9.0, 10.0) == [1, 0]


def test_of_equal_times_the_later_row_holds_and_repetitions_change_nothing() -> None:
    day = one((5.0, "charge_off"), (5.0, "charge_on"), (7.0, "charge_on"), (9.0, "charge_off"), (9.0, "charge_off"))
    assert at(day, "charging", 5.0, 8.0, 9.0) == [1, 1, 0]
    assert day.next_change_s([0], 5.0)[0] == 9.0


def test_what_nobody_recorded_holds_and_what_others_recorded_does_not() -> None:
    alone = one((5.0, "charge_on"))
    assert at(alone, "wifi", 0.0, 10.0) == [1, 1]
    assert at(alone, "idle", 0.0, 10.0) == [1, 1]
    beside = one((5.0, "screen_off"), other=(1.0, "wifi_on"))
    assert at(beside, "wifi", 0.0, 10.0) == [0, 0]
    beside = one((5.0, "charge_on"), other=(1.0, "screen_on"))
    assert at(beside, "idle", 0.0, 10.0) == [1, 1]


@pytest.mark.parametrize("repeat", ["days", "recording", "never"])
def test_a_state_that_never_changes_has_no_next_change(repeat: str) -> None:
    day = one((0.0, "charge_on"), (50.0, "charge_on"), repeat=repeat)
    # Of "never" too: the event is at the very start.
    assert at(day, "charging", 0.0, 1e6) == [1, 1]
    assert day.next_change_s([0], 0.0)[0] == math.inf


def test_recorded_devices_are_dealt_evenly_and_by_seed() -> None:
    rows = [(str(name), float(name), "charge_on") for name in range(50)]
    sets = []
    for seed in range(3):
        day = TraceAvailability(trace(rows), seed=seed)
        names = day.recorded(np.arange(120))
        # Fifty devices, each before any a second time.
        assert len(set(names[:50])) == len(set(names[50:100])) == 50
        sets.append(set(names[:10]))
    assert sets[0] != sets[1]
    assert sets[1] != sets[2]


def test_nobody_asked_is_nobody_answered() -> None:
    day, nobody = one((1.0, "charge_on")), np.zeros(0, dtype=np.int64)
    assert day.state(nobody, 0.0).idle.shape == (0,)
    assert day.next_change_s(nobody, 0.0).shape == (0,)
    assert day.changes(nobody, 0.0, 100.0).time_s.shape == (0, 0)


def test_a_hundred_thousand_devices_answer_at_once() -> None:
    # 1,000 recorded devices of 500 events each over six days.
    events, names = 500, 1000
    step_s = 6 * DAY_S / events
    device, number = np.repeat(np.arange(names), events), np.tile(np.arange(events), names)
    found = TraceEvents(
        names=tuple(map(str, range(names))),
        device=device,
        time_s=number * step_s + device * 0.25,
        event=(number + device) % 6,
    )
    day = TraceAvailability(found, seed=1)

    def seconds(devices: int) -> float:
        times = []
        for turn in range(5):
            start_s = perf_counter()
            state = day.state(np.arange(devices), 1_000_000.0 + turn * 1000.0)
            times.append(perf_counter() - start_s)
            assert 0.1 < state.charging.mean() < 0.9
        return min(times)

    # A thousand times as many take some 60 times as long; a loop over devices takes a thousand times.
    assert seconds(100_000) < 400 * seconds(100)
