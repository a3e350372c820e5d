"""Oort's scores worked out by hand, and what its choices are like."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.training.oort import Oort
from pocketfleet.training.selection import Feedback

POPULATION = 40
EVERYBODY = np.arange(POPULATION)


def feedback(
    device: npt.ArrayLike,
    *,
    index: int = 0,
    examples: npt.ArrayLike = 10,
    loss: npt.ArrayLike = 1.0,
    duration_s: npt.ArrayLike = 5.0,
) -> Feedback:
    device = np.asarray(device)
    return Feedback(
        round=index,
        device=device,
        num_examples=np.broadcast_to(np.asarray(examples), device.shape),
        loss=np.broadcast_to(np.asarray(loss, dtype=float), device.shape),
        duration_s=np.broadcast_to(np.asarray(duration_s, dtype=float), device.shape),
    )


def made(**options: float) -> Oort:
    return Oort(seed=7, population=POPULATION, **options)


def test_scores_are_those_worked_out_by_hand() -> None:
    oort = made(clip=1.0, preferred=0.5, penalty=2.0)
    # Utilities 10 * 1, 20 * 2 and 5 * 4 of device 0, 1 and 2; of the largest, 1/4, 1 and 1/2.
    oort.learn(feedback([0, 1, 2], examples=[10, 20, 5], loss=[1.0, 2.0, 4.0], duration_s=[4.0, 8.0, 2.0]))
    # The median duration is 4 s: device 1 takes twice that, which costs it (1/2) ** 2. Round 1: no staleness yet.
    np.testing.assert_allclose(oort.scores(np.array([0, 1, 2]), round_index=0), [0.25, 0.25, 0.5])
    # Round index 2 is R = 3, and all were heard of in L = 1.
    stale = np.sqrt(0.1 * np.log(3.0))
    expected = [0.25 + stale, (1.0 + stale) / 4, 0.5 + stale]
    np.testing.assert_allclose(oort.scores(np.array([0, 1, 2]), round_index=2), expected)
    # Device 0 again, in R = 3: its L is 3, its utility 20.
    oort.learn(feedback([0], index=2, examples=10, loss=2.0, duration_s=4.0))
    assert oort.scores(np.array([0]), round_index=3)[0] == pytest.approx(0.5 + np.sqrt(0.1 * np.log(4.0) / 3))


def test_utilities_are_clipped_at_a_quantile() -> None:
    oort = made(clip=0.5)
    oort.learn(feedback([0, 1, 2], loss=[1.0, 2.0, 100.0]))
    # The median utility is 20: device 2 counts as much as device 1.
    np.testing.assert_allclose(oort.scores(np.array([0, 1, 2]), round_index=0), [0.5, 1.0, 1.0])


@pytest.mark.parametrize(("index", "share"), [(0, 0.9), (1, 0.882), (200, 0.2)])
def test_the_share_of_exploration_decays(index: int, share: float) -> None:
    # 0.9 * 0.98 = 0.882; 0.9 * 0.98 ** 200 = 0.016 is below the least, 0.2.
    assert made().exploration(index) == pytest.approx(share)
    oort = made()
    oort.learn(feedback(np.arange(20)))
    chosen = oort.choose(EVERYBODY, count=10, round_index=index)
    assert (chosen >= 20).sum() == round(10 * share)
    assert len(set(chosen.tolist())) == 10


@pytest.mark.parametrize(("known", "explored"), [(0, 10), (3, 9), (35, 5), (40, 0)])
def test_where_one_kind_is_too_few_the_other_fills_up(known: int, explored: int) -> None:
    oort = made()
    oort.learn(feedback(np.arange(known)))
    chosen = oort.choose(EVERYBODY, count=10, round_index=0)
    # 9 of 10 are to be explored, as many as there are.
    assert (chosen >= known).sum() == explored
    assert len(set(chosen.tolist())) == 10


def picked(oort: Oort, *, count: int, rounds: int = 200) -> Counter[int]:
    return Counter(
        device for index in range(rounds) for device in oort.choose(EVERYBODY, count=count, round_index=index).tolist()
    )


def test_devices_of_high_utility_are_preferred_and_slow_ones_avoided() -> None:
    oort = made(exploration=0.0, exploration_min=0.0, cutoff=0.0)
    # Ten each of: high and fast, high and slow, low and fast, low and slow. Half are slow, thrice the median.
    loss = np.repeat([4.0, 4.0, 1.0, 1.0], 10)
    duration_s = np.repeat([2.0, 6.0, 2.0, 6.0], 10)
    oort.learn(feedback(EVERYBODY, loss=loss, duration_s=duration_s))
    times = picked(oort, count=8)
    fast_high, slow_high, fast_low, slow_low = (
        sum(times[device] for device in range(first, first + 10)) for first in (0, 10, 20, 30)
    )
    assert fast_high > 1.5 * fast_low > 0
    assert fast_high > 3 * slow_high > 0
    assert slow_high > slow_low


def test_without_a_penalty_slow_devices_are_as_good_as_fast_ones() -> None:
    oort = made(exploration=0.0, exploration_min=0.0, penalty=0.0)
    oort.learn(feedback(EVERYBODY, duration_s=np.repeat([2.0, 60.0], 20)))
    times = picked(oort, count=8)
    slow = sum(times[device] for device in range(20, 40))
    # Half of 1,600, with a standard deviation of 20 at most.
    assert abs(slow - 800) < 100


def test_the_cutoff_leaves_out_who_is_far_behind_the_last_place() -> None:
    oort = made(exploration=0.0, exploration_min=0.0, cutoff=0.95)
    oort.learn(feedback(EVERYBODY, loss=np.repeat([4.0, 1.0], 20)))
    # In round 1 nothing is stale: of 20 with score 1, ten are drawn, and nobody of the others with 1/4.
    assert set(oort.choose(EVERYBODY, count=10, round_index=0).tolist()) <= set(range(20))
    # Where 25 are wanted, the last place's score is 1/4, and all take part.
    assert len(set(oort.choose(EVERYBODY, count=25, round_index=0).tolist())) == 25


def test_who_is_waited_for_in_vain_is_explored_less() -> None:
    oort = made()
    # Nothing is known of what they learn: devices 0 to 19 have been waited for 20 s, the others reported after 2 s,
    # but with a loss that is not known.
    oort.learn(feedback(np.arange(20), examples=0, loss=np.nan, duration_s=20.0))
    oort.learn(feedback(np.arange(20, 40), index=1, loss=np.nan, duration_s=2.0))
    times = picked(oort, count=5)
    slow = sum(times[device] for device in range(20))
    # The preferred duration is 2 s: weights (2/20) ** 2 and 1.
    assert 0 < slow < 0.1 * times.total()


def test_the_blacklisted_come_only_where_nobody_else_is_left() -> None:
    oort = made(blacklist_rounds=2)
    for index in range(2):
        oort.learn(feedback(np.arange(30), index=index))
    assert set(oort.choose(EVERYBODY, count=10, round_index=2).tolist()) == set(range(30, 40))
    chosen = oort.choose(EVERYBODY, count=12, round_index=2).tolist()
    assert len(set(chosen)) == 12 > len(set(chosen) - set(range(30)))


def test_the_pacer_lets_slower_devices_in_when_less_is_gained() -> None:
    oort = made(pacer_window=2, pacer_step=0.1, preferred=0.3)
    quantiles = []
    for index, loss in enumerate([2.0, 2.0, 1.0, 1.0, 3.0, 3.0]):
        oort.learn(feedback([0, 1], index=index, loss=loss))
        quantiles.append(round(float(oort.state()["paced"][0]), 6))
    # After four rounds the last two gained less than the two before; after six, more.
    assert quantiles == [0.3, 0.3, 0.3, 0.4, 0.4, 0.4]


@given(
    st.lists(
        st.tuples(
            st.sets(st.integers(0, POPULATION - 1), min_size=1, max_size=12),
            st.floats(0.0, 1e6),
            st.floats(0.0, 1e4),
            st.integers(0, 3),
        ),
        max_size=6,
    ),
    st.sets(st.integers(0, POPULATION - 1), min_size=2),
    st.integers(1, POPULATION),
)
def test_any_history_gives_a_valid_choice_that_a_restored_one_makes_too(
    history: list[tuple[set[int], float, float, int]], devices: set[int], count: int
) -> None:
    oort = made(blacklist_rounds=3, pacer_window=2)
    for index, (reported, loss, duration_s, examples) in enumerate(history):
        known = np.nan if examples == 0 else loss
        oort.learn(feedback(sorted(reported), index=index, examples=examples, loss=known, duration_s=duration_s))
    candidates, count = np.array(sorted(devices)), min(count, len(devices) - 1)
    chosen = oort.choose(candidates, count=count, round_index=len(history))
    assert len(set(chosen.tolist())) == len(chosen) == count
    assert set(chosen.tolist()) <= devices
    restored = made(blacklist_rounds=3, pacer_window=2)
    restored.restore(oort.state())
    assert restored.choose(candidates, count=count, round_index=len(history)).tolist() == chosen.tolist()
