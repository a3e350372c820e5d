import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.device_sim.user_cost import TrainingDays, user_figures


def table(**columns: list[float]) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    names = (
        "assigned",
        "accepted",
        "steps",
        "train_s",
        "downlink_bytes",
        "uplink_bytes",
        "metered_bytes",
        "energy_joules",
    )
    plain = {name: np.zeros(count) for name in names}
    return pd.DataFrame({**plain, "battery_joules": np.full(count, 100.0), **columns})


def test_figures_by_hand() -> None:
    devices = table(
        assigned=[2, 1, 0, 0],
        accepted=[1, 0, 0, 0],
        steps=[10, 0, 0, 0],
        train_s=[120.0, 0.0, 0.0, 0.0],
        downlink_bytes=[3e6, 1e6, 0, 0],
        uplink_bytes=[1e6, 0, 0, 0],
        energy_joules=[50.0, 10.0, 0.0, 0.0],
        metered_bytes=[0, 1e6, 0, 0],
    )
    found = user_figures(devices, training_days=np.array([2, 1, 0, 0]), days=3.0)
    # A month is ten times three days. 50 of 100 joules are half a battery, 5 batteries a month; over all four phones
    # 0, 0, 100 and 500 percent.
    assert found["battery_percent_per_month_all_p50"] == pytest.approx(50)
    assert found["battery_percent_per_month_assigned_p50"] == pytest.approx(300)
    assert found["battery_percent_per_training_day_p50"] == pytest.approx((25 + 10) / 2)
    assert found["metered_mb_per_month_assigned_p50"] == pytest.approx(5)  # of 0 and 10
    assert found["unmetered_mb_per_month_assigned_p50"] == pytest.approx(20)  # of 40 and 0
    assert found["training_minutes_per_month_assigned_p50"] == pytest.approx(10)  # of 20 and 0
    assert (found["never_assigned_ratio"], found["never_trained_ratio"], found["never_accepted_ratio"]) == (
        *(0.5, 0.75, 0.75),
    )


def test_a_phone_may_use_both_kinds_of_link() -> None:
    devices = table(assigned=[1], downlink_bytes=[5e6], metered_bytes=[2e6])
    found = user_figures(devices, training_days=np.array([1]), days=30.0)
    assert found["metered_mb_per_month_all_p99"] == pytest.approx(2)
    assert found["unmetered_mb_per_month_all_p99"] == pytest.approx(3)


def test_a_fleet_that_nobody_asked() -> None:
    found = user_figures(table(assigned=[0, 0]), training_days=np.array([0, 0]), days=1.0)
    assert found["battery_percent_per_month_assigned_p95"] is None
    assert found["battery_percent_per_training_day_p50"] is None
    assert found["battery_percent_per_month_all_p95"] == 0.0
    assert found["never_assigned_ratio"] == 1.0


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=60), st.floats(0.1, 90.0))
def test_percentiles_interpolate_between_sorted_users(joules: list[float], days: float) -> None:
    devices = table(assigned=[1.0] * len(joules), energy_joules=joules)
    found = user_figures(devices, training_days=np.ones(len(joules), np.int64), days=days)
    ranked = sorted(joule * 30.0 / days for joule in joules)  # percent of 100 joules
    for quantile in (50, 95, 99):
        place = quantile / 100.0 * (len(ranked) - 1)
        below, above = ranked[int(place)], ranked[min(int(place) + 1, len(ranked) - 1)]
        expected = below + (above - below) * (place - int(place))
        assert found[f"battery_percent_per_month_all_p{quantile}"] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_training_days_are_days_on_which_attempts_ended() -> None:
    days = TrainingDays(3, 2.5 * 86_400.0)
    for time_s, device, kind in ((80_000, 0, "report"), (86_399, 0, "drop"), (86_400, 0, "report"), (1, 1, "assign")):
        days.add_events(pd.DataFrame({"time_s": [float(time_s)], "device": [device], "kind": [kind]}))
    assert days.counts().tolist() == [2, 0, 0]
