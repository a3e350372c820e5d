import numpy as np
import pytest

from pocketfleet.device_sim.thermal_class import SKIN_LIMIT_CELSIUS, load_thermal_classes
from pocketfleet.device_sim.thermal_policy import CPU_CELSIUS, START_CELSIUS, STOP_CELSIUS, budget_watts, speed_ratio


def test_budgets_are_the_published_ones_of_a_mid_case_and_go_with_what_a_case_sheds() -> None:
    severity = np.array([0, 1, 2], dtype=np.int8)
    assert budget_watts(severity, np.full(3, 6.5)).tolist() == [np.inf, 1.2, 0.8]
    small, mid, large = load_thermal_classes()
    of_class = [budget_watts(severity[1:2], np.array([each.skin_kelvin_per_watt]))[0] for each in (small, mid, large)]
    assert of_class[1] == 1.2
    ratios = [each.sustained_watts / mid.sustained_watts for each in (small, mid, large)]
    np.testing.assert_allclose(of_class, np.array(ratios) * 1.2)


def test_speed_falls_less_than_watts() -> None:
    # Half the watts: 2 ** (-1 / 1.8) = 0.68 of the speed.
    speed = speed_ratio(np.array([2.0, 1.0, 0.0]), np.array([2.0, 2.0, 0.0]))
    assert speed.tolist() == pytest.approx([1.0, 0.6804, 1.0], abs=1e-4)


def test_the_limits_rise() -> None:
    assert CPU_CELSIUS[0] == SKIN_LIMIT_CELSIUS == START_CELSIUS
    assert list(CPU_CELSIUS) == sorted(CPU_CELSIUS)
    assert CPU_CELSIUS[-1] < STOP_CELSIUS
