import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.device_sim.fleet import build_fleet
from pocketfleet.device_sim.thermal import Cases, relaxed, warmed_by_decay
from pocketfleet.device_sim.thermal_class import load_thermal_classes
from pocketfleet.device_sim.thermal_policy import CHARGE_CELSIUS, LEAST_CHARGE_WATTS


def test_cases_are_those_of_the_phones() -> None:
    fleet = build_fleet(devices=3, seed=1, phones=["Pixel 5", "Pixel 8", "Redmi Note 9"])
    cases = Cases.of_devices(fleet, np.array([2, 0]), room_celsius=20.0)
    small, _, large = load_thermal_classes()
    assert cases.kelvin_per_watt.tolist() == [large.skin_kelvin_per_watt, small.skin_kelvin_per_watt]
    assert cases.time_constant_s.tolist() == [large.time_constant_s, small.time_constant_s]
    np.testing.assert_allclose(cases.settles_at_celsius(np.ones(2)), [20.0 + 5.7, 20.0 + 7.5])


def test_a_skin_is_63_percent_of_the_way_after_its_time_constant() -> None:
    after = relaxed(np.array([25.0]), np.array([35.0]), np.array([600.0]), np.array([600.0]))
    assert after[0] == pytest.approx(25.0 + 10.0 * (1 - np.exp(-1)))


@settings(deadline=None)
@given(st.floats(0.0, 5000.0), st.floats(1e-5, 0.02), st.floats(100.0, 2000.0))
def test_heat_that_falls_warms_as_its_integral(seconds: float, rate_per_s: float, time_constant_s: float) -> None:
    share = warmed_by_decay(
        np.array([seconds]), rate_per_s=np.array([rate_per_s]), time_constant_s=np.array([time_constant_s])
    )
    # Simpson's rule on exp(-rate t) exp(-(seconds - t) / tau) / tau.
    t = np.linspace(0.0, seconds, 2001)
    values = np.exp(-rate_per_s * t - (seconds - t) / time_constant_s) / time_constant_s
    integral = (values[0] + values[-1] + 4 * values[1:-1:2].sum() + 2 * values[2:-1:2].sum()) * seconds / 2000 / 3
    assert share[0] == pytest.approx(integral, rel=1e-5, abs=1e-9)


def test_heat_that_falls_as_fast_as_the_case_cools_has_its_own_form() -> None:
    for rate_per_s in (1 / 600, 1 / 600 * (1 + 1e-9), 1 / 600 * (1 + 1e-4)):
        share = warmed_by_decay(np.array([600.0]), rate_per_s=np.array([rate_per_s]), time_constant_s=np.array([600.0]))
        assert share[0] == pytest.approx(np.exp(-1), rel=1e-4)


def test_a_charger_may_give_what_holds_the_skin_at_its_limit() -> None:
    cases = Cases(room_celsius=25.0, kelvin_per_watt=np.full(2, 6.5), time_constant_s=np.full(2, 600.0))
    draw = np.array([0.5, 3.0])
    held = cases.held_charge_watts(draw)
    assert cases.settles_at_celsius(draw + 0.15 * held)[0] == pytest.approx(CHARGE_CELSIUS)
    # 3 W alone pass it: the least is left.
    assert held[1] == LEAST_CHARGE_WATTS
