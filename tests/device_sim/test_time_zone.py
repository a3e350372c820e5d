import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.device_sim.availability import AlwaysAvailable, make_availability
from pocketfleet.device_sim.day_changes import walked_changes
from pocketfleet.device_sim.flash_day import FlashDay
from pocketfleet.device_sim.time_zone import ZonedDay, zone_weights
from pocketfleet.errors import InputError

HOUR_S, DAY_S = 3600.0, 86400.0
TWO = {"-5": 1.0, "5.5": 3.0}


def test_devices_are_spread_by_weight() -> None:
    hours = ZonedDay(AlwaysAvailable(), TWO, seed=1).offset_s(np.arange(20_000)) / HOUR_S
    assert set(hours.tolist()) == {-5.0, 5.5}
    assert np.mean(hours == 5.5) == pytest.approx(0.75, abs=0.01)


def test_a_further_device_changes_no_other_zone() -> None:
    day = ZonedDay(AlwaysAvailable(), TWO, seed=1)
    np.testing.assert_array_equal(day.offset_s(np.arange(100)), day.offset_s(np.arange(101))[:100])
    other = ZonedDay(AlwaysAvailable(), TWO, seed=2).offset_s(np.arange(100))
    assert not np.array_equal(day.offset_s(np.arange(100)), other)


def test_a_device_lives_the_same_day_by_its_own_clock() -> None:
    plain, zoned = FlashDay(seed=3), ZonedDay(FlashDay(seed=3), TWO, seed=3)
    devices = np.arange(300)
    at_s, local_s = 30 * HOUR_S, 30 * HOUR_S + zoned.offset_s(devices)
    np.testing.assert_array_equal(zoned.local_s(devices, at_s), local_s)
    np.testing.assert_array_equal(zoned.state(devices, at_s).code, plain.state(devices, local_s).code)
    np.testing.assert_array_equal(zoned.place(devices, at_s), plain.place(devices, local_s))
    assert len(np.unique(zoned.place(devices, at_s))) == 3
    np.testing.assert_array_equal(
        zoned.next_change_s(devices, at_s) + zoned.offset_s(devices), plain.next_change_s(devices, local_s)
    )


def test_one_zone_at_no_distance_is_no_zone() -> None:
    devices = np.arange(200)
    plain, zoned = FlashDay(seed=1), ZonedDay(FlashDay(seed=1), {"0": 2.0}, seed=1)
    for at_s in (0.0, 5000.5, 3 * DAY_S):
        np.testing.assert_array_equal(plain.next_change_s(devices, at_s), zoned.next_change_s(devices, at_s))


def test_half_the_world_away_nights_meet_days() -> None:
    # The fleet's share that may train swings by its hour of the day; over zones 12 hours apart it swings less.
    devices = np.arange(4000)

    def swing(zones: dict[str, float]) -> float:
        day = make_availability("flash-2020", seed=1, time_zones=zones)
        shares = []
        for hour in range(24):
            state = day.state(devices, DAY_S + hour * HOUR_S)
            shares.append(float(np.mean(state.idle & state.charging & state.wifi)))
        return max(shares) / min(shares)

    assert swing({"0": 1.0, "12": 1.0}) < 0.75 * swing({"0": 1.0})


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**40),
    st.sampled_from(["-12", "-3.5", "5.75", "14"]),
    st.floats(0.0, 20 * DAY_S),
    st.floats(0.0, DAY_S),
)
def test_state_next_change_and_changes_agree(seed: int, zone: str, from_s: float, length_s: float) -> None:
    day, devices = ZonedDay(FlashDay(seed=seed), {zone: 1.0, "0": 1.0}, seed=seed), np.arange(6)
    start_s, end_s = np.full(6, from_s), np.full(6, from_s + length_s)
    fast, slow = day.changes(devices, start_s, end_s), walked_changes(day, devices, start_s, end_s)
    np.testing.assert_array_equal(fast.time_s, slow.time_s)
    np.testing.assert_array_equal(fast.code, slow.code)
    change_s = day.next_change_s(devices, from_s)
    assert np.all(change_s > from_s)
    assert np.all(day.state(devices, change_s).code != day.state(devices, from_s).code)


@pytest.fixture
def recording(tmp_path) -> str:
    trace = tmp_path / "trace.csv"
    rows = [("f", 36_000, "screen_on"), ("f", 36_600, "screen_off"), ("f", 79_200, "screen_on"), ("f", 80_000, "end")]
    trace.write_text("device,time_s,event\n" + "".join(f"{name},{at_s},{event}\n" for name, at_s, event in rows))
    return str(trace)


@pytest.mark.parametrize("repeat", ["days", "recording", "never"])
def test_recorded_days_are_lived_by_local_clocks_too(recording: str, repeat: str) -> None:
    zones = {"-12": 1.0, "3": 1.0}
    plain = make_availability(recording, seed=1, trace_repeat=repeat)
    zoned = make_availability(recording, seed=1, trace_repeat=repeat, time_zones=zones)
    devices, seen = np.arange(20), set()
    for at_s in np.arange(12 * HOUR_S, 3 * DAY_S, 571.0):
        local_s = zoned.local_s(devices, at_s)
        state = zoned.state(devices, at_s)
        np.testing.assert_array_equal(state.code, plain.state(devices, local_s).code)
        seen |= {"both" if state.idle.all() or not state.idle.any() else "one"}
    assert seen == {"both", "one"}


def test_a_recording_that_never_repeats_has_not_begun_before_its_midnight(recording: str) -> None:
    # Twelve hours west it is noon of the day before: the phone is first used at its 10:00, 22 hours later.
    day = make_availability(recording, seed=1, trace_repeat="never", time_zones={"-12": 1.0})
    one = np.array([0])
    assert day.state(one, 0.0).idle.tolist() == [True]
    assert day.next_change_s(one, 0.0).tolist() == [22 * HOUR_S]
    assert day.state(one, 22 * HOUR_S).idle.tolist() == [False]


@pytest.mark.parametrize(
    ("zones", "message"),
    [
        ({"15": 1.0}, 'hours ahead of UTC from -12 to 14 in quarters, such as "-5" or "5.5", got \'15\''),
        ({"-5.1": 1.0}, "got '-5.1'"),
        ({"CET": 1.0}, "got 'CET'"),
        ({"nan": 1.0}, "got 'nan'"),
        ({"1": 0.0}, "a weight above 0, got 0 at '1'"),
        ({"1": np.inf}, "a weight above 0, got inf at '1'"),
        ({"1": 0.5, "1.0": 0.5}, "each offset once, got '1.0' again"),
    ],
)
def test_zones_that_are_none_are_refused(zones: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as refused:
        make_availability("always", seed=1, time_zones=zones)
    assert message in str(refused.value)


def test_weights_are_shares() -> None:
    assert zone_weights({"1": 3.0, "-5": 1.0}) == {-5.0: 0.25, 1.0: 0.75}
