import numpy as np
import pytest

from pocketfleet.device_sim.thermal_class import SKIN_LIMIT_CELSIUS, load_thermal_classes
from pocketfleet.device_sim.thermal_policy import (
    CPU_CELSIUS,
    SEVERITY_CELSIUS,
    START_CELSIUS,
    START_STATUS,
    STOP_CELSIUS,
    STOP_STATUS,
    budget_watts,
    speed_ratio,
    too_hot,
)


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


def test_statuses_count_the_limits_of_the_skin() -> None:
    # Names and numbers of Android's PowerManager, degrees of the policy.
    names = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
    status = {name: number for number, name in enumerate(names)}
    assert len(SEVERITY_CELSIUS) == len(names)
    assert list(SEVERITY_CELSIUS) == sorted(SEVERITY_CELSIUS)
    assert (status["moderate"], status["critical"]) == (START_STATUS, STOP_STATUS)
    assert (SEVERITY_CELSIUS[status["moderate"]], SEVERITY_CELSIUS[status["severe"]]) == CPU_CELSIUS
    assert (START_CELSIUS, STOP_CELSIUS) == (43.0, 46.5)


def test_skin_and_status_are_one_rule() -> None:
    # A phone whose status is what its skin's degrees make of it is judged by either alone as by both.
    celsius = np.arange(30.0, 60.0, 0.25)
    status = np.searchsorted(SEVERITY_CELSIUS, celsius, side="right") - 1
    unknown = np.full(len(celsius), np.nan)
    for training in (False, True):
        by_skin = too_hot(celsius, training=training)
        assert 0 < by_skin.sum() < len(celsius)
        np.testing.assert_array_equal(too_hot(unknown, status=status, training=training), by_skin)
        np.testing.assert_array_equal(too_hot(celsius, status=status, training=training), by_skin)


def test_a_phone_that_tells_nothing_is_not_hot() -> None:
    assert too_hot(np.array([np.nan])).tolist() == [False]
    assert too_hot(np.array([np.nan]), training=True).tolist() == [False]
