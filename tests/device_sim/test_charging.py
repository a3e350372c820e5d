import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.device_sim.charging import FLOOR_RATIO, FULL_POWER_RATIO, KNEE_RATIO, Taper, accepted_watts

CAPACITY_JOULES = 50_000.0


def charged(level: float, net: float, full: float, seconds: float) -> Taper:
    return Taper.of(
        np.array([level]),
        net_watts=np.array([net]),
        full_watts=np.array([full]),
        capacity_joules=np.array([CAPACITY_JOULES]),
        seconds=np.array([seconds]),
    )


def taken(level: float, full: float) -> float:
    columns = {"full_watts": np.array([full]), "capacity_joules": np.array([CAPACITY_JOULES])}
    return float(accepted_watts(np.array([level]), **columns)[0])


def test_a_battery_takes_all_up_to_the_knee_then_less_and_the_floor_in_the_end() -> None:
    assert taken(0.0, 10.0) == taken(KNEE_RATIO * CAPACITY_JOULES, 10.0) == 10.0
    # Half way from the knee to full.
    half = (KNEE_RATIO + 1.0) / 2.0 * CAPACITY_JOULES
    assert taken(half, 10.0) == pytest.approx(10.0 * (FLOOR_RATIO + (1 - FLOOR_RATIO) / 2))
    assert taken(CAPACITY_JOULES * (1 - 1e-9), 10.0) == pytest.approx(10.0 * FLOOR_RATIO, rel=1e-6)
    assert taken(CAPACITY_JOULES, 10.0) == 0.0


def test_filling_an_empty_battery_takes_as_long_as_at_the_mean_power() -> None:
    mean_watts = 10.0
    full_watts = mean_watts * FULL_POWER_RATIO
    whole = charged(0.0, full_watts, full_watts, 1e6)
    assert whole.level_joules[0] == CAPACITY_JOULES
    assert whole.constant_s[0] + whole.falling_s[0] == pytest.approx(CAPACITY_JOULES / mean_watts)


def test_a_trickle_goes_in_whole() -> None:
    # Under the floor of 0.5 W of 10: 0.4 W for 1000 s, up to the very end.
    trickle = charged(CAPACITY_JOULES - 500.0, 0.4, 10.0, 1000.0)
    assert trickle.level_joules[0] == pytest.approx(CAPACITY_JOULES - 100.0)
    assert trickle.falling_s[0] == 0.0


@settings(max_examples=60, deadline=None)
@given(
    level=st.floats(0.0, CAPACITY_JOULES),
    full=st.floats(1.0, 80.0),
    share=st.floats(0.01, 1.0),
    seconds=st.floats(0.0, 5000.0),
)
def test_the_closed_form_is_what_small_steps_come_to(level: float, full: float, share: float, seconds: float) -> None:
    net, steps = share * full, 20_000
    closed = charged(level, net, full, seconds)
    slow = level
    for _ in range(steps):
        slow = min(slow + seconds / steps * min(net, taken_fast(slow, full)), CAPACITY_JOULES)
    assert closed.level_joules[0] == pytest.approx(slow, abs=full * seconds / steps * 2 + 1e-6)
    # What went in, by the parts of the way.
    falling = closed.falling_watts / closed.falling_per_s * -np.expm1(-closed.falling_per_s * closed.falling_s)
    assert level + net * closed.constant_s[0] + falling[0] == pytest.approx(closed.level_joules[0], abs=1e-6)
    parts_s = closed.constant_s + closed.falling_s + closed.full_s
    assert parts_s[0] == pytest.approx(seconds)


def taken_fast(level: float, full: float) -> float:
    missing = min((CAPACITY_JOULES - level) / ((1 - KNEE_RATIO) * CAPACITY_JOULES), 1.0)
    return full * (FLOOR_RATIO + (1 - FLOOR_RATIO) * missing)
