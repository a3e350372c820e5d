import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pocketfleet.training.codec.packing import packed, unpacked
from pocketfleet.training.codec.quantisation import blocks_of, dequantised, levels, quantised
from pocketfleet.training.draws import draw_key, normal, numbers

BITS = (8, 4, 2)
# Without those so small that a block of them arrives as zeros.
values = st.floats(-1e6, 1e6, width=32).filter(lambda value: value == 0.0 or abs(value) > 1e-20)
vectors = st.integers(1, 60).flatmap(lambda length: arrays(np.float32, length, elements=values))


def decoded(vector: np.ndarray, *, bits: int, dice_seed: int | None, pieces: tuple[int, ...] = ()) -> np.ndarray:
    blocks = blocks_of(pieces or (len(vector),))
    codes, steps = quantised(vector, blocks, bits=bits, dice_seed=dice_seed)
    return dequantised(codes, steps, blocks, bits=bits)


def slow(vector: np.ndarray, *, bits: int, dice_seed: int | None) -> tuple[list[int], list[np.float32]]:
    """One piece, value by value, as the module's rules say it."""
    most = np.float32(2 ** (bits - 1) - 1)
    codes, steps = [], []
    drawn = numbers(draw_key(dice_seed or 0, "codec_dice"), len(vector) // 4 + 1)
    for i, x in enumerate(vector):
        if i % 1_024 == 0:
            largest = max(abs(float(value)) for value in vector[i : i + 1_024])
            steps.append(np.float32(np.float32(largest) / most if largest >= 2.0**-100 else 0.0))
        y = x / steps[-1] if steps[-1] > 0 else x
        dice = int(drawn[i // 4]) >> (16 * (i % 4)) & 0xFFFF
        u = 0.5 if dice_seed is None else (dice + 0.5) / 65_536
        code = np.floor(np.float32(y + np.float32(float(most) + u)))
        codes.append(int(min(max(code, 0), 2 * most)))
    return codes, steps


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dice_seed", [None, 11])
def test_its_bits_are_those_of_the_loop(bits: int, dice_seed: int | None) -> None:
    vector = normal(draw_key(3, "test_vector"), 2_500).astype(np.float32)
    vector[1_024:2_048] *= np.float32(2.0**-101)  # a block of one value
    vector[2_047] = 2.0**-100
    vector[2_048:] *= np.float32(2.0**-104)  # and one of nothing
    codes, steps = quantised(vector, blocks_of((2_500,)), bits=bits, dice_seed=dice_seed)
    expected_codes, expected_steps = slow(vector, bits=bits, dice_seed=dice_seed)
    assert codes.tolist() == expected_codes
    assert steps.tolist() == expected_steps
    assert (dequantised(codes, steps, blocks_of((2_500,)), bits=bits) == _arrived(codes, steps, bits)).all()


@pytest.mark.parametrize(("short", "code"), [(0.75, 1), (0.25, 2)])
def test_a_dice_is_the_middle_of_what_it_stands_for(short: float, code: int) -> None:
    # With 2 bits and a largest value of 1 the step is 1, and y the value: a 65,536th's three quarters short of what the
    # dice makes whole it is rounded down, a quarter short up, since half of one is added.
    dice = int(numbers(draw_key(11, "codec_dice"), 1)[0]) >> 16 & 0xFFFF
    vector = np.array([1.0, (65_536 - dice - short) / 65_536], dtype=np.float32)
    codes, steps = quantised(vector, blocks_of((2,)), bits=2, dice_seed=11)
    assert steps.tolist() == [1.0]
    assert codes[1] == code


def _arrived(codes: np.ndarray, steps: np.ndarray, bits: int) -> np.ndarray:
    return (codes.astype(np.float32) - np.float32(levels(bits))) * np.repeat(steps, 1_024)[: len(codes)]


@settings(max_examples=60, deadline=None)
@given(vectors, st.sampled_from(BITS), st.integers(0, 2**62))
def test_the_mean_over_the_dice_is_the_vector_and_the_variance_is_bounded(
    vector: np.ndarray, bits: int, first: int
) -> None:
    draws = 400
    step = float(quantised(vector, blocks_of((len(vector),)), bits=bits, dice_seed=None)[1][0])
    found = np.stack([decoded(vector, bits=bits, dice_seed=first + draw) for draw in range(draws)]).astype(np.float64)
    # A mean of 400 values with a spread of half a step at most has one of a 40th: seven of them, and the stated bias.
    assert np.abs(found.mean(axis=0) - vector).max() <= (7 / 40 + 2.0**-15) * step
    # The bound is of the expectation around the value; of one value's 400 draws by chance 1 % more.
    assert np.square(found - vector).mean(axis=0).max() <= 1.5 * step**2 / 4 + 1e-30


@given(vectors, st.sampled_from(BITS), st.integers(0, 2**62) | st.none())
def test_no_value_moves_by_more_than_a_step(vector: np.ndarray, bits: int, dice_seed: int | None) -> None:
    steps = quantised(vector, blocks_of((len(vector),)), bits=bits, dice_seed=None)[1]
    moved = np.abs(decoded(vector, bits=bits, dice_seed=dice_seed).astype(np.float64) - vector)
    # To the nearest: half a step; 2**-15 of one for float32's rounding.
    assert moved.max() <= (0.5 if dice_seed is None else 1.0) * float(steps[0]) * (1 + 2.0**-15)


@given(vectors, st.sampled_from(BITS))
def test_rounding_to_the_nearest_leaves_less_than_there_was(vector: np.ndarray, bits: int) -> None:
    left = vector.astype(np.float64) - decoded(vector, bits=bits, dice_seed=None)
    assert np.square(left).sum() <= np.square(vector.astype(np.float64)).sum() * (1 - 1 / len(vector)) + 1e-20


@pytest.mark.parametrize("bits", BITS)
def test_the_bias_is_at_most_two_to_the_minus_16_steps(bits: int) -> None:
    # All 65,536 dice for a value: the share of those that round up is the mean.
    most = levels(bits)
    dice = ((np.arange(65_536, dtype=np.float32) + np.float32(most * 65_536 + 0.5)) * np.float32(2.0**-16)).astype(
        np.float32
    )
    for y in (normal(draw_key(4, "test_levels"), 200) * most / 3).clip(-most, most).astype(np.float32):
        mean = np.floor((y + dice).astype(np.float32)).clip(0, 2 * most).mean() - most
        assert abs(mean - float(y)) <= 2.0**-16


def test_each_piece_has_blocks_of_its_own() -> None:
    blocks = blocks_of((3, 0, 1_030, 2))
    assert blocks.start.tolist() == [0, 3, 1_027, 1_033]
    assert blocks.length.tolist() == [3, 1_024, 6, 2]
    vector = np.ones(1_035, dtype=np.float32)
    vector[:3] = 1e-6
    # The small piece is not rounded by the large one's steps.
    np.testing.assert_allclose(decoded(vector, bits=2, dice_seed=None, pieces=(3, 0, 1_030, 2)), vector, rtol=1e-6)


def test_no_values_are_no_blocks() -> None:
    assert decoded(np.empty(0, dtype=np.float32), bits=8, dice_seed=1, pieces=(0,)).tolist() == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    vector = np.array([1.0, value], dtype=np.float32)
    with pytest.raises(ValueError, match=re.escape("no finite numbers")):
        quantised(vector, blocks_of((2,)), bits=8, dice_seed=1)


@pytest.mark.parametrize("largest", [3.4e38, 2.0**-99, 2.0**-101, 1e-45])
@pytest.mark.parametrize("bits", BITS)
def test_the_largest_and_smallest_numbers_of_float32(largest: float, bits: int) -> None:
    vector = np.array([largest, -largest, 0.0], dtype=np.float32)
    found = decoded(vector, bits=bits, dice_seed=None)
    expected = vector if largest >= 2.0**-100 else np.zeros(3)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_no_pass_over_the_values_is_slow() -> None:
    # One pass of NumPy over float32 values on this machine, for scale: the whole way is some 60 of them at most.
    vector = normal(draw_key(1, "test_speed"), 200_000).astype(np.float32)
    blocks = blocks_of((len(vector),))

    def there_and_back() -> None:
        codes, steps = quantised(vector, blocks, bits=4, dice_seed=5)
        dequantised(unpacked(packed(codes, bits=4), bits=4, count=len(codes)), steps, blocks, bits=4)

    assert _least_s(there_and_back) < 60 * _least_s(lambda: np.exp(vector).sum())


def _least_s(work: object) -> float:
    assert callable(work)
    seconds = []
    for _ in range(9):
        began_s = time.process_time()
        work()
        seconds.append(time.process_time() - began_s)
    return min(seconds)
