import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pocketfleet.training.codec.top_k import largest, place_bytes, places_from_bytes, places_to_bytes
from pocketfleet.training.update import UpdateError


@given(arrays(np.float32, st.integers(1, 30), elements=st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0])), st.data())
def test_the_largest_are_kept_and_of_equal_ones_the_first(vector: np.ndarray, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(vector)))
    expected = sorted(sorted(range(len(vector)), key=lambda place: (-abs(vector[place]), place))[:count])
    assert largest(vector, count).tolist() == expected


@pytest.mark.parametrize(
    ("length", "width"), [(0, 1), (1, 1), (256, 1), (257, 2), (65_536, 2), (65_537, 3), (2**24, 3), (2**24 + 1, 4)]
)
def test_a_place_takes_as_few_bytes_as_hold_the_last_one(length: int, width: int) -> None:
    assert place_bytes(length) == width


@given(st.integers(1, 100_000), st.data())
def test_places_come_back(length: int, data: st.DataObject) -> None:
    places = np.array(sorted(data.draw(st.sets(st.integers(0, length - 1), max_size=20))), dtype=np.int64)
    found = places_to_bytes(places, length=length)
    assert len(found) == len(places) * place_bytes(length)
    assert places_from_bytes(found, length=length).tolist() == places.tolist()


def test_the_lowest_byte_is_first() -> None:
    assert places_to_bytes(np.array([258]), length=300).tolist() == [2, 1]


@pytest.mark.parametrize("places", [[5, 5], [6, 5], [5, 9]])
def test_places_that_do_not_rise_or_are_beyond_are_refused(places: list[int]) -> None:
    data = np.array(places, dtype=np.uint8)
    with pytest.raises(UpdateError, match=re.escape("must rise and be under 9")):
        places_from_bytes(data, length=9)
