import itertools
import math
import statistics

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pocketfleet.training.draws import draw_key, normal, permutation
from pocketfleet.training.robust_rules import (
    coordinate_median,
    krum_choice,
    least_cohort,
    most_liars,
    squared_distances,
    trimmed_each_side,
    trimmed_mean,
)

Block = npt.NDArray[np.float32]
# Ties and zeros of both signs among them; so large that a float32 sum of two overflows.
values = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 3.0e38, -3.0e38]), st.floats(-1e3, 1e3, width=32, allow_nan=False)
)
blocks = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9), elements=values)
seeds = st.integers(0, 2**32)


def reports(count: int, *, columns: int = 40, seed: int = 1) -> Block:
    return normal(draw_key(seed, "reports", np.arange(count)), columns).astype(np.float32)


def slow_krum(block: Block, *, liars: int) -> list[int]:
    """Blanchard et al. 2017, read aloud: plain sums over plain lists."""
    rows = [[float(value) for value in row] for row in block]
    scores = []
    for row in rows:
        far = sorted(math.fsum((a - b) ** 2 for a, b in zip(row, other, strict=True)) for other in rows)
        # The first is the report itself, at 0.
        scores.append(math.fsum(far[1 : len(rows) - liars - 1]))
    order = sorted(range(len(rows)), key=lambda place: (scores[place], place))
    return sorted(order[: len(rows) - liars])


@given(blocks)
def test_a_median_is_each_columns_own(block: Block) -> None:
    expected = [statistics.median(float(value) for value in column) for column in block.T]
    assert coordinate_median(block).tolist() == expected


@given(blocks, st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.4, 0.499]))
def test_a_trimmed_mean_leaves_the_ends_out(block: Block, ratio: float) -> None:
    cut = trimmed_each_side(len(block), ratio)
    for column, mean in zip(block.T, trimmed_mean(block, ratio=ratio), strict=True):
        kept = sorted(float(value) for value in column)[cut : len(block) - cut]
        # Of values up to 3e38, float64 loses at most their last bits.
        assert mean == pytest.approx(math.fsum(kept) / len(kept), rel=1e-12, abs=1e-14 * max(map(abs, kept)))


@given(blocks, seeds)
def test_the_order_of_reports_changes_no_bit_of_a_coordinates_rule(block: Block, seed: int) -> None:
    shuffled = block[permutation(draw_key(seed, "order"), len(block))]
    assert np.array_equal(coordinate_median(block), coordinate_median(shuffled))
    assert np.array_equal(trimmed_mean(block, ratio=0.3), trimmed_mean(shuffled, ratio=0.3))


@pytest.mark.parametrize(
    ("count", "ratio", "each_side"),
    [(10, 0.2, 2), (30, 0.2, 6), (9, 0.2, 1), (4, 0.2, 0), (100, 0.29, 29), (1, 0.49, 0), (2, 0.49, 0), (3, 0.49, 1)],
)
def test_so_many_are_trimmed(count: int, ratio: float, each_side: int) -> None:
    # 0.2 * 9 = 1.8, rounded down; 0.29 * 100 is 28.999999999999996 in binary, and 29 all the same.
    assert trimmed_each_side(count, ratio) == each_side


@given(st.integers(1, 10**6), st.floats(0.0, 0.5, exclude_max=True))
def test_a_value_is_always_left(count: int, ratio: float) -> None:
    assert count - 2 * trimmed_each_side(count, ratio) >= 1


def test_nothing_trimmed_is_the_mean() -> None:
    block = reports(7)
    np.testing.assert_allclose(trimmed_mean(block, ratio=0.0), block.astype(np.float64).mean(axis=0), rtol=1e-12)


def test_liars_up_to_the_ratio_do_not_move_a_coordinate_beyond_the_honest() -> None:
    honest = reports(8)
    for lie in (1e30, -1e30):
        block = np.concatenate([honest, np.full((2, 40), lie, dtype=np.float32)])
        for combined in (coordinate_median(block), trimmed_mean(block, ratio=0.2)):
            assert (combined >= honest.min(axis=0)).all()
            assert (combined <= honest.max(axis=0)).all()


@given(arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(1, 6)), elements=st.floats(-50, 50, width=32)))
def test_distances_are_sums_of_squares(block: Block) -> None:
    distances = squared_distances(block)
    for one, other in itertools.product(range(len(block)), repeat=2):
        expected = math.fsum((float(a) - float(b)) ** 2 for a, b in zip(block[one], block[other], strict=True))
        # A difference of squares: of norms up to 6 * 100**2, 16 digits.
        assert distances[one, other] == pytest.approx(expected, rel=1e-12, abs=1e-9)
    assert np.array_equal(distances, distances.T)
    assert (np.diagonal(distances) == 0).all()


def test_a_huge_lie_leaves_the_distances_between_the_honest_as_they_are() -> None:
    honest = reports(7) * np.float32(1e-3)
    block = np.concatenate([honest, np.full((2, 40), 1e30, dtype=np.float32)])
    np.testing.assert_allclose(squared_distances(block)[:7, :7], squared_distances(honest), rtol=1e-9)


@given(count=st.integers(3, 14), byzantine=st.integers(0, 5), seed=seeds, scale=st.sampled_from([1e-3, 1.0, 30.0]))
@settings(deadline=None)
def test_krums_choice_is_the_papers(count: int, byzantine: int, seed: int, scale: float) -> None:
    block = reports(count, seed=seed)
    block[: count // 4] *= np.float32(-scale)
    liars = most_liars(count, byzantine)
    assert krum_choice(squared_distances(block), byzantine=byzantine).tolist() == slow_krum(block, liars=liars)


@given(count=st.integers(3, 14), seed=seeds)
@settings(deadline=None)
def test_krum_chooses_the_same_reports_in_any_order(count: int, seed: int) -> None:
    block = reports(count, seed=seed)
    order = permutation(draw_key(seed, "order"), count)
    chosen = krum_choice(squared_distances(block), byzantine=2)
    again = order[krum_choice(squared_distances(block[order]), byzantine=2)]
    assert sorted(again.tolist()) == chosen.tolist()


def test_krum_leaves_out_those_who_agree_with_nobody() -> None:
    block = np.concatenate([reports(7) + np.float32(10), np.float32(-10) * reports(3, seed=2)])
    # 10 reports, 3 of which may lie: 2 * 3 + 3 = 9 are needed.
    assert krum_choice(squared_distances(block), byzantine=3).tolist() == list(range(7))


def test_of_equal_scores_the_earlier_row_goes_first() -> None:
    block = np.tile(reports(1), (6, 1))
    assert krum_choice(squared_distances(block), byzantine=1).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("count", "byzantine", "liars"), [(1, 3, 0), (2, 3, 0), (4, 3, 0), (5, 3, 1), (8, 3, 2), (9, 3, 3), (90, 3, 3)]
)
def test_a_small_round_has_room_for_fewer_liars(count: int, byzantine: int, liars: int) -> None:
    # 2 f + 3 reports are needed: 5 for one liar, 7 for two, 9 for three.
    assert most_liars(count, byzantine) == liars
    assert liars == 0 or count >= least_cohort(liars)
    assert len(krum_choice(squared_distances(reports(count)), byzantine=byzantine)) == count - liars
