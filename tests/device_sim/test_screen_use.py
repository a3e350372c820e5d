"""Seconds of use against a day walked second by second, and the same bits whoever asks when."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import ScriptedDay

from pocketfleet.device_sim.flash_day import FlashDay
from pocketfleet.device_sim.screen_use import ScreenUse

DAY_S = 86_400.0
# Seconds of use across midnights, a whole day long, and of another condition, which is no use.
GAPS = [
    (0, "idle", 100.0, 400.0),
    (0, "idle", 86_000.0, 87_000.0),
    (0, "charging", 500.0, 600.0),
    (1, "idle", 0.0, 3 * DAY_S),
    (2, "wifi", 0.0, 1e6),
]


def test_seconds_are_those_in_which_the_day_is_not_idle() -> None:
    use = ScreenUse(ScriptedDay(*GAPS), devices=3)
    times = np.array([0.0, 100.0, 250.0, 400.0, 86_399.0, DAY_S, 86_900.0, 2 * DAY_S, 5 * DAY_S])
    # Device 0 by hand: 300 s of the first gap, then 1000 s of the second.
    assert use.seconds(np.zeros(9, dtype=np.int64), times).tolist() == [
        0.0, 0.0, 150.0, 300.0, 699.0, 700.0, 1200.0, 1300.0, 1300.0
    ]  # fmt: skip
    assert use.seconds(np.ones(9, dtype=np.int64), times).tolist() == np.minimum(times, 3 * DAY_S).tolist()
    assert use.seconds(np.full(9, 2), times).tolist() == [0.0] * 9


def test_a_flash_day_is_walked_second_by_second() -> None:
    day, device, seconds = FlashDay(seed=7), np.arange(20), 40_000
    walked = np.zeros(len(device))
    for second in range(seconds):
        walked += ~day.state(device, second + 0.5).idle
    found = ScreenUse(day, devices=20).seconds(device, np.full(20, float(seconds)))
    # Each of a phone's uses, about two an hour, may cut a second on either side.
    np.testing.assert_allclose(found, walked, atol=40.0)
    assert (found > 300.0).sum() > 8


@settings(max_examples=30, deadline=None)
@given(
    questions=st.lists(st.tuples(st.integers(0, 5), st.floats(0.0, 4 * DAY_S)), min_size=1, max_size=12),
    cut=st.integers(0, 12),
)
def test_a_sum_has_the_same_bits_whatever_was_asked_before_and_beside(questions, cut) -> None:
    """Forwards, backwards, one by one or together, also across a checkpoint."""
    day = FlashDay(seed=3)
    device = np.array([who for who, _ in questions])
    at_s = np.array([when for _, when in questions])
    alone = [float(ScreenUse(day, devices=6).seconds(device[[n]], at_s[[n]])[0]) for n in range(len(device))]
    use = ScreenUse(day, devices=6)
    first = use.seconds(device[:cut], at_s[:cut])
    again = ScreenUse(day, devices=6)
    again.restore(use.state())
    rest = again.seconds(device[cut:], at_s[cut:])
    assert [*first.tolist(), *rest.tolist()] == alone


class Counted(ScriptedDay):
    """Counts the seconds that it is asked about."""

    asked_s = 0.0

    def changes(self, devices, from_s, until_s):
        self.asked_s += float((until_s - from_s).sum())
        return super().changes(devices, from_s, until_s)


@pytest.mark.parametrize("restored", [False, True])
def test_days_are_added_up_once(restored: bool) -> None:
    day = Counted(*GAPS)
    use = ScreenUse(day, devices=3)
    use.seconds(np.array([0]), np.array([50 * DAY_S]))
    assert day.asked_s == 50 * DAY_S
    if restored:
        state, use = use.state(), ScreenUse(day, devices=3)
        use.restore(state)
    use.seconds(np.array([0]), np.array([50 * DAY_S + 60.0]))
    assert day.asked_s == 50 * DAY_S + 60.0
