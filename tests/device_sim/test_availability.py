import numpy as np
import pytest

from pocketfleet.device_sim.availability import AlwaysAvailable, FlashDay, make_availability
from pocketfleet.errors import InputError


def test_always_is_always() -> None:
    always = make_availability("always", seed=1)
    assert isinstance(always, AlwaysAvailable)
    state = always.state(np.arange(3), 12345.0)
    for column in (state.idle, state.charging, state.wifi):
        assert column.tolist() == [True, True, True]
    assert always.next_change_s(np.arange(3), 12345.0).tolist() == [np.inf] * 3


def test_a_day_is_that_of_its_seed() -> None:
    devices = np.arange(500)
    day, again, other = (make_availability("flash-2020", seed=seed) for seed in (1, 1, 2))
    assert isinstance(day, FlashDay)
    first = day.state(devices, 50_000.0)
    np.testing.assert_array_equal(first.charging, again.state(devices, 50_000.0).charging)
    assert not np.array_equal(first.charging, other.state(devices, 50_000.0).charging)


def test_an_unknown_name_is_told_the_names() -> None:
    with pytest.raises(InputError, match=r"fleet\.availability must be one of flash-2020, always, got 'never'"):
        make_availability("never", seed=1)
