"""The seam of choosing devices, and the uniform choice."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.errors import InputError
from pocketfleet.training.round import Int64s
from pocketfleet.training.selection import Uniform, chosen_of
from pocketfleet.training.selection_by_name import load_selection


class Wrong(Uniform):
    """Chooses what it was made to."""

    def __init__(self, chosen: list[int]) -> None:
        super().__init__(seed=1, population=9)
        self._chosen = np.array(chosen)

    def choose(self, candidates: Int64s, *, count: int, round_index: int) -> Int64s:
        del candidates, count, round_index
        return self._chosen


@given(
    st.sets(st.integers(0, 999), min_size=2, max_size=40),
    st.integers(1, 39),
    st.integers(0, 10**6),
    st.integers(0, 50),
)
def test_a_uniform_choice_is_of_the_candidates_and_a_further_one_takes_one_place_at_most(
    devices: set[int], count: int, seed: int, round_index: int
) -> None:
    candidates = np.array(sorted(devices))
    selection = Uniform(seed=seed, population=1000)
    chosen = chosen_of(selection, candidates, count=count, round_index=round_index)
    assert len(chosen) == min(count, len(candidates))
    assert set(chosen) <= devices
    # Rule 1: who else is there changes nobody's draw.
    fewer = chosen_of(selection, candidates[:-1], count=count, round_index=round_index)
    assert len(set(chosen) - set(fewer)) <= 1


def test_a_uniform_choice_is_uniform() -> None:
    selection = Uniform(seed=4, population=10)
    candidates = np.arange(10)
    times = Counter(
        device for index in range(2000) for device in selection.choose(candidates, count=3, round_index=index).tolist()
    )
    # 600 each, with a standard deviation of sqrt(2000 * 0.3 * 0.7) = 20.5; five of them.
    assert all(abs(times[device] - 600) < 103 for device in range(10))


@pytest.mark.parametrize("chosen", [[1], [1, 1], [1, 7], [1, 2, 3]])
def test_a_choice_of_others_is_refused(chosen: list[int]) -> None:
    with pytest.raises(InputError, match="Wrong must choose 2 distinct devices of the 5 candidates, got"):
        chosen_of(Wrong(chosen), np.arange(1, 6), count=2, round_index=0)


def test_of_no_more_than_wanted_all_are_chosen_unasked() -> None:
    candidates = np.array([3, 5])
    assert chosen_of(Wrong([0]), candidates, count=2, round_index=0).tolist() == [3, 5]


@pytest.mark.parametrize(
    ("name", "options", "window_s", "trains", "message"),
    [
        ("oort", {}, 0.0, True, 'rounds.selection "oort" needs phones to choose from, and without a window'),
        ("best", {}, 5.0, True, r'must be "uniform", "oort" or "my_module:make_selection", got \'best\''),
        ("uniform", {"penalty": 1.0}, 5.0, True, "selection_options do not fit rounds.selection 'uniform': .*penalty"),
        ("oort", {"seed2": 1}, 5.0, True, "do not fit rounds.selection 'oort': .*seed2"),
        ("oort", {}, 5.0, False, "chooses by the losses that phones report, and engine.timing_only trains nothing"),
        ("oort", {"cutoff": 1.5}, 5.0, True, r"selection_options\.cutoff must be 0\.\.1, got 1\.5"),
        ("oort", {"penalty": -1}, 5.0, True, r"selection_options\.penalty must be a number, 0 or more, got -1"),
        ("oort", {"pacer_window": 0}, 5.0, True, r"selection_options\.pacer_window must be an integer, 1 or more"),
        ("collections:Counter", {}, 5.0, True, "'collections:Counter' returned Counter, which lacks parts of"),
        ("nowhere:made", {}, 5.0, True, "rounds.selection: no module named 'nowhere'"),
    ],
)
def test_a_selection_that_cannot_be_is_refused(
    name: str, options: dict[str, object], window_s: float, trains: bool, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_selection(name, options, seed=1, population=9, window_s=window_s, trains=trains)
