import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.device_sim.battery import Battery
from pocketfleet.device_sim.day_changes import CHARGING, IDLE, DayState, walked_changes
from pocketfleet.device_sim.flash_day import FlashDay
from pocketfleet.device_sim.fleet import build_fleet
from pocketfleet.device_sim.place import Place

HALF_HOUR_S = 1800.0
DEVICES, DAYS = 2000, 5


def available(state: DayState) -> np.ndarray:
    return state.idle & state.charging & state.wifi


@pytest.fixture(scope="module")
def grid() -> np.ndarray:
    """Available or not, ``[half hour, device]``, over five days."""
    day = FlashDay(seed=1)
    devices = np.arange(DEVICES)
    return np.array([available(day.state(devices, step * HALF_HOUR_S)) for step in range(DAYS * 48)])


def session_hours(grid: np.ndarray) -> np.ndarray:
    """Lengths of the runs of available half hours."""
    edge = np.zeros((1, grid.shape[1]), dtype=np.int64)
    change = np.diff(np.concatenate([edge, grid.astype(np.int64), edge]), axis=0).T
    starts, ends = np.nonzero(change == 1)[1], np.nonzero(change == -1)[1]
    return (ends - starts) / 2.0


# The published figures: Dr-PKDP/FMCL-Convergence-Privacy@bd2bbe3 results/e5/availability_matrix.npy, from
# PKU-Chengxu/FLASH data/state_traces.json; 723 phones, 5 days, every 30 minutes.
def test_the_mean_is_the_published_one(grid: np.ndarray) -> None:
    assert grid.mean() == pytest.approx(0.0812, abs=0.01)


def test_the_day_is_the_published_one(grid: np.ndarray) -> None:
    profile = grid.reshape(DAYS, 48, DEVICES).mean(axis=(0, 2))
    assert profile.max() / profile.min() == pytest.approx(2.265, abs=0.35)
    # 4:30 to 5:30 (0.119 to 0.121) is near its height and 13:30 to 15:00 (0.053 to 0.059) near its depth.
    assert profile[9:11].mean() == pytest.approx(0.120, abs=0.02)
    assert profile[27:30].mean() == pytest.approx(0.056, abs=0.015)


def test_as_many_as_published_are_never_available(grid: np.ndarray) -> None:
    assert np.mean(~grid.any(axis=0)) == pytest.approx(0.29, abs=0.05)


def test_devices_differ_as_published(grid: np.ndarray) -> None:
    # Quantiles of a device's own mean: median 0.042, 90 % 0.224.
    median, ninety = np.quantile(grid.mean(axis=0), [0.5, 0.9])
    assert median == pytest.approx(0.042, abs=0.025)
    assert ninety == pytest.approx(0.224, abs=0.05)


def test_sessions_last_as_published(grid: np.ndarray) -> None:
    hours = session_hours(grid)
    # Median 1 h; 90 % within 5.5 h; P(on -> off) in half an hour 0.24, whose inverse is the mean of 2.05 h.
    assert np.median(hours) == pytest.approx(1.0, abs=0.5)
    assert np.quantile(hours, 0.9) == pytest.approx(5.5, abs=1.5)
    assert hours.mean() == pytest.approx(2.05, abs=0.4)


def test_sessions_that_start_at_night_last_longer_than_evening_ones(grid: np.ndarray) -> None:
    # Published by P(on -> off) in half an hour: 0.05 to 0.17 from 22:00 to 3:00, 0.41 to 0.44 from 17:00 to 21:00.
    change = np.diff(np.concatenate([np.zeros((1, DEVICES), dtype=np.int64), grid.astype(np.int64)]), axis=0)
    start_hour = (np.nonzero(change.T == 1)[1] % 48) / 2.0
    hours = session_hours(grid)
    night, evening = (start_hour >= 22.0) | (start_hour < 3.0), (start_hour >= 17.0) & (start_hour < 21.0)
    assert hours[night].mean() > 1.4 * hours[evening].mean()
    assert np.median(hours[night]) > np.median(hours[evening])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**40), st.floats(0.0, 40 * 86400.0))
def test_the_next_change_is_the_first(seed: int, now_s: float) -> None:
    day = FlashDay(seed=seed)
    devices = np.arange(8)
    now = day.state(devices, now_s)
    change_s = day.next_change_s(devices, now_s)
    assert np.all(change_s > now_s)
    then = day.state(devices, change_s)
    flipped = (now.idle != then.idle) | (now.charging != then.charging) | (now.wifi != then.wifi)
    assert flipped.all()
    for share in (0.01, 0.3, 0.5, 0.7, 0.99):
        between = day.state(devices, now_s + share * (change_s - now_s))
        np.testing.assert_array_equal(between.idle, now.idle)
        np.testing.assert_array_equal(between.charging, now.charging)
        np.testing.assert_array_equal(between.wifi, now.wifi)


def test_changes_lead_through_the_days_that_a_grid_sees() -> None:
    # The slow way round: walk from change to change and compare with the state looked up on a grid.
    day = FlashDay(seed=4)
    one = np.array([11])
    changes, now_s = [], 0.0
    while now_s < 2 * 86400.0:
        now_s = float(day.next_change_s(one, now_s)[0])
        changes.append(now_s)
    assert len(changes) > 40
    for at_s in np.arange(0.0, 2 * 86400.0, 97.0):
        since_s = max([change_s for change_s in changes if change_s <= at_s], default=0.0)
        assert available(day.state(one, at_s)) == available(day.state(one, since_s))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**40),
    st.lists(st.tuples(st.floats(0.0, 20 * 86400.0), st.floats(0.0, 2 * 86400.0)), min_size=1, max_size=6),
)
def test_all_changes_of_a_while_are_those_found_one_after_another(seed: int, whiles: list[tuple[float, float]]) -> None:
    day, devices = FlashDay(seed=seed), np.arange(len(whiles))
    from_s = np.array([start_s for start_s, _ in whiles])
    until_s = from_s + np.array([length_s for _, length_s in whiles])
    fast, slow = day.changes(devices, from_s, until_s), walked_changes(day, devices, from_s, until_s)
    np.testing.assert_array_equal(fast.time_s, slow.time_s)
    np.testing.assert_array_equal(fast.code, slow.code)
    for column, (start_s, end_s) in enumerate(zip(*(side.T for side in fast.pieces()), strict=True)):
        rows = end_s > start_s
        middle_s = ((start_s + end_s) / 2.0)[rows]
        np.testing.assert_array_equal(day.state(devices[rows], middle_s).code, fast.code[rows, column])


def test_a_further_device_changes_no_other() -> None:
    day = FlashDay(seed=2)
    few, more = np.arange(100), np.arange(101)
    for at_s in (0.0, 40_000.0, 90_000.0):
        np.testing.assert_array_equal(day.state(few, at_s).charging, day.state(more, at_s).charging[:100])
        np.testing.assert_array_equal(day.next_change_s(few, at_s), day.next_change_s(more, at_s)[:100])


def test_nobody_asked_is_nobody_answered() -> None:
    day = FlashDay(seed=1)
    nobody = np.zeros(0, dtype=np.int64)
    assert day.state(nobody, 0.0).idle.shape == (0,)
    assert day.next_change_s(nobody, 0.0).shape == (0,)


def test_each_device_may_have_its_own_time() -> None:
    day = FlashDay(seed=1)
    devices, at_s = np.arange(50), np.arange(50) * 5000.0
    together, changes_s = day.state(devices, at_s), day.next_change_s(devices, at_s)
    for row in range(50):
        alone = day.state(devices[row : row + 1], float(at_s[row]))
        assert together.idle[row] == alone.idle[0]
        assert together.charging[row] == alone.charging[0]
        assert changes_s[row] == day.next_change_s(devices[row : row + 1], float(at_s[row]))[0]


def test_a_fleet_that_lives_these_days_keeps_its_batteries_alive() -> None:
    fleet = build_fleet(devices=300, seed=1)
    cells, devices = Battery.of_fleet(fleet), np.arange(300)
    cells.set(devices, cells.level_joules_at(devices, 3 * 86400.0, day=FlashDay(seed=1)), 3 * 86400.0)
    ratio = cells.level_joules / cells.capacity_joules
    # Assumed days must not starve phones: people charge before a phone is empty.
    assert np.median(ratio) > 0.5
    assert np.mean(ratio < 0.05) < 0.15


def test_charging_lasts_over_midnight() -> None:
    day = FlashDay(seed=1)
    devices = np.arange(DEVICES)
    before, after = (day.state(devices, 86400.0 + step_s).charging for step_s in (-1.0, 0.0))
    # In one second only a few of the charging phones can be unplugged.
    assert before.sum() > 50
    assert np.mean(after[before]) > 0.97


def test_some_phones_never_have_wifi() -> None:
    day = FlashDay(seed=1)
    devices = np.arange(300)
    ever = np.any([day.state(devices, step * HALF_HOUR_S).wifi for step in range(3 * 48)], axis=0)
    assert 0.05 < np.mean(~ever) < 0.29


@pytest.mark.parametrize("seed", [2, 3, 4, 5, 6])
def test_other_seeds_are_as_published_too(seed: int) -> None:
    day, devices = FlashDay(seed=seed), np.arange(DEVICES)
    seen = np.array([available(day.state(devices, step * HALF_HOUR_S)) for step in range(DAYS * 48)])
    profile = seen.reshape(DAYS, 48, DEVICES).mean(axis=(0, 2))
    hours = session_hours(seen)
    assert seen.mean() == pytest.approx(0.0812, abs=0.01)
    assert profile.max() / profile.min() == pytest.approx(2.265, abs=0.35)
    assert np.mean(~seen.any(axis=0)) == pytest.approx(0.29, abs=0.05)
    assert np.median(hours) == pytest.approx(1.0, abs=0.5)
    assert np.quantile(hours, 0.9) == pytest.approx(5.5, abs=1.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**40), st.floats(0.0, 20 * 86400.0))
def test_places_go_with_wifi(seed: int, now_s: float) -> None:
    day, devices = FlashDay(seed=seed), np.arange(200)
    place, wifi = day.place(devices, now_s), day.state(devices, now_s).wifi
    assert not wifi[place == Place.COMMUTE].any()
    # At home a phone is on Wi-Fi unless it never is; some of 200 are at home at any time.
    ever = np.any([day.state(devices, now_s + hour * 3600.0).wifi for hour in range(48)], axis=0)
    assert np.array_equal(wifi[place == Place.HOME], ever[place == Place.HOME])
    assert (place == Place.HOME).any()


def test_a_day_goes_from_home_over_the_way_to_work_and_back() -> None:
    day, devices = FlashDay(seed=1), np.arange(DEVICES)
    at_s = 86_400.0 + np.arange(4.0, 28.0, 1 / 6) * 3600.0
    places = np.array([day.place(devices, step_s) for step_s in at_s])
    at_work = (places == Place.WORK).any(axis=0)
    # 0.6 work, on 0.85 of most of their Tuesdays.
    assert 0.42 < at_work.mean() < 0.52
    first, last = (places == Place.WORK).argmax(axis=0), (places[::-1] == Place.WORK).argmax(axis=0)
    for number in np.flatnonzero(at_work):
        stay = places[first[number] : len(places) - last[number], number]
        assert np.all(stay == Place.WORK)
    assert np.all(places[0] == Place.HOME)
    assert np.all(places[-1] == Place.HOME)
    # By Wi-Fi at work or without, and some of it is charging time.
    noon = day.state(devices, 86_400.0 + 43_200.0)
    working = day.place(devices, 86_400.0 + 43_200.0) == Place.WORK
    assert 0.2 < noon.wifi[working].mean() < 0.6
    assert noon.charging[working].mean() > 0.03


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 7), st.floats(0.0, 20 * 86400.0), st.floats(0.0, 2 * 86400.0))
def test_conditions_that_hold_always_leave_the_others_alone(
    seed: int, always: int, from_s: float, length_s: float
) -> None:
    plain, day, devices = FlashDay(seed=seed), FlashDay(seed=seed, always=always), np.arange(4)
    np.testing.assert_array_equal(day.state(devices, from_s).code, plain.state(devices, from_s).code | always)
    start_s, end_s = np.full(4, from_s), np.full(4, from_s + length_s)
    fast, slow = day.changes(devices, start_s, end_s), walked_changes(day, devices, start_s, end_s)
    np.testing.assert_array_equal(fast.time_s, slow.time_s)
    np.testing.assert_array_equal(fast.code, slow.code)
    change_s = day.next_change_s(devices, from_s)
    comes = np.isfinite(change_s)
    assert comes.all() or always in {7, 3}
    before, after = (day.state(devices[comes], at_s) for at_s in (start_s[comes], change_s[comes]))
    assert np.all(before.code != after.code)


def test_a_phone_without_wifi_that_is_always_idle_and_charging_never_changes() -> None:
    day, plain, devices = FlashDay(seed=1, always=IDLE | CHARGING), FlashDay(seed=1), np.arange(100)
    ever = np.any([plain.state(devices, hour * 3600.0).wifi for hour in range(96)], axis=0)
    np.testing.assert_array_equal(np.isfinite(day.next_change_s(devices, 0.0)), ever)
    assert 0 < ever.sum() < 100
    assert np.all(FlashDay(seed=1, always=7).next_change_s(devices, 0.0) == np.inf)
