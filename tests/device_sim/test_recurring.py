import numpy as np
import pytest

from pocketfleet.device_sim.recurring import Drawn, Recurring, Spans

HOUR_S = 3600.0
ONE = np.array([0])
NO_TRAITS = np.zeros((1, 0))


def hourly(length_s: float, *, happens: bool = True, slots_back: int = 1) -> Recurring:
    """An interval of every hour, from a quarter past on."""

    def draw(traits: np.ndarray, slot_start_s: np.ndarray, chance: np.ndarray) -> Drawn:
        shape = slot_start_s.shape
        return Drawn(happens=np.full(shape, happens), after_s=np.full(shape, 900.0), length_s=np.full(shape, length_s))

    return Recurring(purpose="test", slot_s=HOUR_S, offset_s=0.0, slots_back=slots_back, draw=draw, chances=4)


def spans(kind: Recurring, now_s: float, slots_ahead: int = 1) -> Spans:
    return kind.spans(1, ONE, NO_TRAITS, np.array([now_s]), slots_ahead=slots_ahead)


def holds(kind: Recurring, now_s: float) -> bool:
    return bool(spans(kind, now_s, slots_ahead=0).hold(np.array([now_s]))[0])


def test_an_interval_holds_its_start_and_not_its_end() -> None:
    kind = hourly(600.0)
    # 0:15 to 0:25.
    assert [holds(kind, at_s) for at_s in (899.0, 900.0, 1499.0, 1500.0)] == [False, True, True, False]


def test_an_interval_reaches_into_the_next_slot() -> None:
    # 23:15 of the day before to 0:15 holds midnight: slot -1 is looked at too.
    assert holds(hourly(HOUR_S), 0.0)
    assert not holds(hourly(HOUR_S, slots_back=0), 0.0)


def test_the_slots_ahead_are_there_too() -> None:
    seen = spans(hourly(600.0), 0.0, slots_ahead=2)
    # The slot before, the current one and two more: 23:15 of the day before, 0:15, 1:15 and 2:15.
    assert seen.start_s[0].tolist() == [-2700.0, 900.0, HOUR_S + 900.0, 2 * HOUR_S + 900.0]
    np.testing.assert_allclose(seen.end_s - seen.start_s, 600.0)


def test_a_slot_without_an_interval_holds_nothing() -> None:
    assert not holds(hourly(600.0, happens=False), 1000.0)


@pytest.mark.parametrize("offset_s", [0.0, -1800.0])
def test_draws_are_keyed_by_device_and_slot(offset_s: float) -> None:
    chances: list[np.ndarray] = []

    def draw(traits: np.ndarray, slot_start_s: np.ndarray, chance: np.ndarray) -> Drawn:
        chances.append(chance)
        zeros = np.zeros(slot_start_s.shape)
        return Drawn(happens=zeros > 0, after_s=zeros, length_s=zeros)

    kind = Recurring(purpose="test", slot_s=HOUR_S, offset_s=offset_s, slots_back=0, draw=draw, chances=4)
    kind.spans(1, np.array([0, 1]), np.zeros((2, 0)), np.zeros(2), slots_ahead=1)
    # The slot after that of time 0, looked at from within.
    kind.spans(1, np.array([1]), np.zeros((1, 0)), np.array([offset_s + HOUR_S + 1799.0]), slots_ahead=0)
    both, later = chances
    assert both.shape == (2, 2, 4)
    # Devices and slots have numbers of their own.
    assert len(np.unique(both)) == both.size
    np.testing.assert_array_equal(later[0, 0], both[1, 1])
