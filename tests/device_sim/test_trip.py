import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.device_sim.place import Place
from pocketfleet.device_sim.trip import HABITS, Trips, draw_trips
from pocketfleet.training.draws import draw_key, uniform

HOUR_S, DAY_S = 3600.0, 86400.0


def habits(devices: int, **fixed: float) -> np.ndarray:
    drawn = uniform(draw_key(1, "habits", np.arange(devices)), len(HABITS))
    for name, value in fixed.items():
        drawn[:, HABITS.index(name)] = value
    return drawn


def of_day(day: int, devices: int = 2000, seed: int = 1, **fixed: float) -> Trips:
    at_s = np.full(devices, day * DAY_S + 12 * HOUR_S)
    return draw_trips(seed, np.arange(devices), habits(devices, **fixed), at_s, at_s)


def to_work(trips: Trips) -> np.ndarray:
    return (trips.depart_s > trips.arrive_s)[:, 0]


def test_a_working_day_goes_there_and_back() -> None:
    trips = of_day(0)
    works = to_work(trips)
    # 0.6 of devices work; of them 0.8 on any Monday and some of the others, 0.85 of these days.
    assert 0.42 < works.mean() < 0.51
    times = np.concatenate([trips.leave_s, trips.arrive_s, trips.depart_s, trips.home_s], axis=1)[works] / HOUR_S
    assert np.all(np.diff(times, axis=1) > 0.0)
    # Leaves from 5:42 to 9:48, by habit and day.
    assert times[:, 0].min() > 5.7 - 0.01
    assert times[:, 0].max() < 9.8 + 0.01
    # The way back is as long as the way there.
    np.testing.assert_allclose(times[:, 1] - times[:, 0], times[:, 3] - times[:, 2], atol=1e-5)
    # Home before the day of trips ends at 4:00, also after the longest ways.
    assert times[:, 3].max() < 28.0


def test_a_way_to_work_is_as_long_as_published() -> None:
    trips = of_day(0, devices=20_000)
    works = to_work(trips)
    way_s = trips.arrive_s[works, 0] - trips.leave_s[works, 0]
    # Census Bureau, ACS-47: 27.6 min in the mean, 9.8 % at least an hour.
    assert way_s.mean() / 60.0 == pytest.approx(27.6, abs=1.0)
    assert np.mean(way_s >= HOUR_S) == pytest.approx(0.098, abs=0.015)


def test_weekends_are_free_for_most_who_work() -> None:
    worked = np.array([to_work(of_day(day)).mean() for day in range(14)])
    weekend = np.isin(np.arange(14) % 7, (5, 6))
    # A fifth has other days off, drawn from the other six: two in three of them work on a Saturday.
    assert np.all(worked[weekend] < 0.12)
    assert np.all(worked[~weekend] > 0.40)


def test_habits_decide_who_works_and_where_there_is_wifi() -> None:
    assert not to_work(of_day(0, work=0.7)).any()
    assert to_work(of_day(0, work=0.1, days=0.1)).mean() == pytest.approx(0.85, abs=0.03)
    assert of_day(0, work=0.1).work_wifi.all()
    assert not of_day(0, work=0.5).work_wifi.any()
    # Leaves by habit: at 6:00 and at 9:30, give or take 18 minutes.
    early, late = of_day(0, work=0.1, start=0.0), of_day(0, work=0.1, start=0.999)
    assert (early.leave_s[to_work(early)] <= 6.3 * HOUR_S).all()
    assert (late.leave_s[to_work(late)] >= 9.19 * HOUR_S).all()


def test_a_desk_is_charged_at_while_at_work_and_by_habit() -> None:
    often, rarely = of_day(0, work=0.1, days=0.1, desk=0.99), of_day(0, work=0.1, days=0.1, desk=0.0)
    for trips in (often, rarely):
        charged = trips.desk.end_s > trips.desk.start_s
        assert np.all(trips.desk.start_s[charged] >= trips.arrive_s[charged])
        assert np.all(trips.desk.end_s[charged] <= trips.depart_s[charged])
    shares = [float((trips.desk.end_s > trips.desk.start_s).mean()) for trips in (often, rarely)]
    # LEAST + SPREAD * habit ** POWER = 0.72 and 0.04, of 0.85 of the days.
    assert shares[0] == pytest.approx(0.85 * 0.72, abs=0.05)
    assert shares[1] == pytest.approx(0.85 * 0.04, abs=0.02)


def test_a_day_off_may_hold_an_outing_without_wifi() -> None:
    trips = of_day(0, work=0.9)
    goes = np.isfinite(trips.leave_s[:, 0])
    assert goes.mean() == pytest.approx(0.17, abs=0.03)
    middle_s = np.where(goes, (trips.leave_s[:, 0] + trips.home_s[:, 0]) / 2.0, 0.0)
    assert np.all(trips.place(middle_s)[goes] == Place.COMMUTE)
    assert np.all(trips.off_wifi().hold(middle_s)[goes])
    assert not np.isfinite(trips.desk.start_s).any()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**40), st.floats(-DAY_S / 2, 20 * DAY_S), st.floats(0.0, 3 * DAY_S))
def test_days_looked_at_together_are_those_looked_at_alone(seed: int, from_s: float, length_s: float) -> None:
    devices, habit = np.arange(6), habits(6)
    from_column, until_column = np.full(6, from_s), np.full(6, from_s + length_s)
    together = draw_trips(seed, devices, habit, from_column, until_column)
    for at_s in np.linspace(from_s, from_s + length_s, 7):
        at_column = np.full(6, at_s)
        alone = draw_trips(seed, devices, habit, at_column, at_column)
        np.testing.assert_array_equal(together.place(at_column), alone.place(at_column))
        np.testing.assert_array_equal(together.off_wifi().hold(at_column), alone.off_wifi().hold(at_column))
        np.testing.assert_array_equal(together.desk.hold(at_column), alone.desk.hold(at_column))
