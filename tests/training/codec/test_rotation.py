import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.training.codec.rotation import block_lengths, padded_length, rotated, rotated_back
from pocketfleet.training.draws import draw_key, normal, numbers


def vector(length: int, seed: int = 1) -> np.ndarray:
    return normal(draw_key(seed, "test_vector"), length).astype(np.float32)


@pytest.mark.parametrize(
    ("length", "blocks"),
    [
        (0, ()),
        (1, (64,)),
        (64, (64,)),
        # 200 = 128 + 64 + 8, and 8 are padded to 64.
        (200, (128, 64, 64)),
        (4_096, (4_096,)),
        # 61,706 = 15 * 4,096 + 266, and 266 = 256 + 10.
        (61_706, (4_096,) * 15 + (256, 64)),
    ],
)
def test_blocks_are_the_binary_digits_of_the_length(length: int, blocks: tuple[int, ...]) -> None:
    assert block_lengths(length) == blocks
    assert padded_length(length) == sum(blocks)


@given(st.integers(0, 20_000))
def test_padding_costs_less_than_64_values(length: int) -> None:
    assert 0 <= padded_length(length) - length < 64
    assert padded_length(length) == sum(block_lengths(length))


@pytest.mark.parametrize("length", [1, 70, 3_000, 9_001])
def test_the_way_back_gives_the_vector_and_the_norm_stays(length: int) -> None:
    before = vector(length)
    turned = rotated(before, 5)
    # Twelve additions a value at most, each rounded by 2**-24 of values of a few standard deviations.
    np.testing.assert_allclose(rotated_back(turned, 5, length=length), before, atol=2e-6)
    assert np.linalg.norm(turned.astype(np.float64)) == pytest.approx(np.linalg.norm(before.astype(np.float64)), 1e-5)


def test_it_is_the_matrix_of_its_sources() -> None:
    # Sylvester's H(64): entry (i, j) is -1 to the number of ones in i & j; signs are the bits of one number.
    hadamard = np.array([[(-1.0) ** (i & j).bit_count() for j in range(64)] for i in range(64)])
    bits = int(numbers(draw_key(9, "rotation"), 1)[0])
    signs = np.array([-1.0 if bits >> i & 1 else 1.0 for i in range(64)])
    before = vector(64)
    np.testing.assert_allclose(rotated(before, 9), hadamard @ (signs * before) / math.sqrt(64), atol=1e-6)


def slow(values: np.ndarray) -> np.ndarray:
    """One block, as the module's rule 3 says it."""
    done = [np.float32(value) for value in values]
    half = 1
    while half < len(done):
        for j in range(len(done)):
            if not j & half:
                a, b = done[j], done[j + half]
                done[j], done[j + half] = np.float32(a + b), np.float32(a - b)
        half *= 2
    factor = np.float32(1.0 / math.sqrt(len(done)))
    return np.array([np.float32(value * factor) for value in done])


@pytest.mark.parametrize("length", [64, 128, 4_096])
def test_its_bits_are_those_of_the_loop(length: int) -> None:
    before = vector(length)
    drawn = numbers(draw_key(9, "rotation"), length // 64)
    signs = [-1.0 if int(drawn[i // 64]) >> (i % 64) & 1 else 1.0 for i in range(length)]
    assert (rotated(before, 9) == slow(before * np.array(signs, dtype=np.float32))).all()


def test_one_value_that_sticks_out_is_spread_evenly() -> None:
    spike = np.zeros(4_096, dtype=np.float32)
    spike[17] = 64.0
    # 64 / sqrt(4,096) = 1 each, in size.
    assert (np.abs(rotated(spike, 3)) == 1.0).all()


@settings(max_examples=20)
@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_another_seed_is_another_rotation(one: int, other: int) -> None:
    # 2,048 signs: two seeds of 2**63 do not share them.
    assert one == other or (rotated(vector(2_048), one) != rotated(vector(2_048), other)).any()
