import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.training.draws import (
    draw_key,
    mix,
    normal,
    numbers,
    permutation,
    permutations,
    uniform,
    walk,
    walk_length,
)

WORD = 2**64 - 1
words = st.integers(0, WORD)


def plain_mix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & WORD
    return z ^ (z >> 31)


def plain_numbers(state: int, count: int) -> list[int]:
    """SplitMix64 as published: a state that grows by the golden ratio, each number mixed from it."""
    drawn = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & WORD
        drawn.append(plain_mix(state))
    return drawn


def plain_fnv1a(text: str) -> int:
    number = 0xCBF29CE484222325
    for byte in text.encode():
        number = (number ^ byte) * 0x100000001B3 & WORD
    return number


def plain_key(seed: int, purpose: str, *indices: int) -> int:
    key = plain_mix((seed + plain_fnv1a(purpose)) & WORD)
    for index in indices:
        key = plain_numbers(key, index + 1)[index]
    return key


def test_numbers_are_those_of_the_published_generator() -> None:
    # The first outputs of Vigna's splitmix64.c for the states 0 and 1234567, as other implementations' tests give them.
    assert numbers(0, 3).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert numbers(1234567, 3).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(key=words)
def test_numbers_equal_plain_integers(key: int) -> None:
    assert numbers(np.uint64(key), 5).tolist() == plain_numbers(key, 5)


def test_purpose_is_fnv_1a() -> None:
    # The published test vector FNV-1a64("foobar") = 0x85944171F73967E8; with seed 0 the key is that number, mixed.
    assert int(draw_key(0, "foobar")) == plain_mix(0x85944171F73967E8)


@given(seed=words, purpose=st.text("ab\u00e9\U0001f600", max_size=4), indices=st.lists(st.integers(0, 40), max_size=3))
def test_key_equals_plain_integers(seed: int, purpose: str, indices: list[int]) -> None:
    assert int(draw_key(seed, purpose, *indices)) == plain_key(seed, purpose, *indices)


@given(key=words, count=st.integers(1, 20))
def test_a_keys_numbers_are_the_keys_of_its_indices(key: int, count: int) -> None:
    seed = (key - plain_fnv1a("purpose")) & WORD
    assert numbers(draw_key(seed, "purpose"), count).tolist() == draw_key(seed, "purpose", np.arange(count)).tolist()


def test_mix_is_one_to_one() -> None:
    # The low and the high end of the words; each of 2 * 10,000 distinct inputs has its own output.
    values = np.concatenate([np.arange(10_000, dtype=np.uint64), np.uint64(WORD) - np.arange(10_000, dtype=np.uint64)])
    assert len(np.unique(mix(values))) == 20_000


def test_keys_differ_by_seed_purpose_and_indices() -> None:
    keys = [
        draw_key(seed, purpose, *indices)
        for seed in (0, 1, 2)
        for purpose in ("epoch", "deal", "")
        for indices in ((), (0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0))
    ]
    assert len({int(key) for key in keys}) == 3 * 3 * 7


def test_scalar_indices_equal_array_indices_in_any_broadcast_shape() -> None:
    rounds, devices = np.arange(3), np.arange(4)
    keys = draw_key(5, "purpose", rounds[:, np.newaxis], devices)
    assert keys.shape == (3, 4)
    assert keys.dtype == np.uint64
    for round_index in rounds.tolist():
        assert np.array_equal(draw_key(5, "purpose", round_index, devices), keys[round_index])
        for device in devices.tolist():
            scalar = draw_key(5, "purpose", round_index, device)
            assert scalar.shape == ()
            assert scalar == keys[round_index, device]


def test_numbers_of_many_keys_are_the_numbers_of_each() -> None:
    keys = draw_key(5, "purpose", np.arange(6)).reshape(2, 3)
    for draw in (numbers, uniform, normal):
        drawn = draw(keys, 4)
        assert drawn.shape == (2, 3, 4)
        assert np.array_equal(drawn[1, 2], draw(keys[1, 2], 4))
        assert np.array_equal(drawn[0, 1], draw(int(keys[0, 1]), 4))


def test_one_more_device_changes_nobodys_draws() -> None:
    few, more = (uniform(draw_key(3, "purpose", 7, np.arange(devices)), 10) for devices in (20, 21))
    assert np.array_equal(more[:20], few)


@given(key=words, count=st.integers(0, 30), more=st.integers(0, 30))
def test_asking_for_more_numbers_changes_none_of_the_first(key: int, count: int, more: int) -> None:
    assert np.array_equal(numbers(np.uint64(key), count + more)[:count], numbers(np.uint64(key), count))
    assert np.array_equal(uniform(np.uint64(key), count + more)[:count], uniform(np.uint64(key), count))


@given(key=words)
def test_uniform_is_the_upper_53_bits(key: int) -> None:
    # Python's true division of integers is exact here: the numerator has 53 bits, the denominator is a power of two.
    assert uniform(np.uint64(key), 5).tolist() == [(number >> 11) / 2**53 for number in plain_numbers(key, 5)]


def test_uniform_spreads_evenly() -> None:
    u = uniform(draw_key(1, "uniform"), 100_000)
    assert u.min() >= 0.0
    assert u.max() < 1.0
    # Mean 1/2 and variance 1/12; five standard errors are 5 * sqrt(1/12 / n) = 0.0046 and
    # 5 * sqrt((1/80 - 1/144) / n) = 0.0012 (fourth central moment 1/80).
    assert abs(u.mean() - 1 / 2) < 0.0046
    assert abs(u.var() - 1 / 12) < 0.0012
    # Ten bins of 10,000 each, standard deviation sqrt(n * 0.1 * 0.9) = 95.
    assert np.abs(np.histogram(u, bins=10, range=(0.0, 1.0))[0] - 10_000).max() < 5 * 95
    # Neighbours are uncorrelated: the correlation's standard error is 1 / sqrt(n) = 0.0032.
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 5 * 0.0032


def test_uniform_over_devices_is_as_even_as_over_one_devices_numbers() -> None:
    u = uniform(draw_key(1, "uniform", np.arange(100_000)), 1)[:, 0]
    # The same bounds as for one key's numbers.
    assert abs(u.mean() - 1 / 2) < 0.0046
    assert abs(u.var() - 1 / 12) < 0.0012


def test_normal_is_box_muller_of_the_uniforms() -> None:
    key = draw_key(1, "normal")
    u = uniform(key, 6).tolist()
    # Radius from the first half of the numbers, angle from the second.
    expected = [math.sqrt(-2 * math.log(1 - u[i])) * math.cos(2 * math.pi * u[3 + i]) for i in range(3)]
    assert normal(key, 3).tolist() == pytest.approx(expected, rel=1e-12)


def test_normal_has_the_moments_of_the_normal_law() -> None:
    z = normal(draw_key(1, "normal"), 100_000)
    # Standard errors of mean, variance and fourth moment: sqrt(1/n), sqrt(2/n), sqrt((105 - 9)/n); five of each.
    assert abs(z.mean()) < 5 * 0.00317
    assert abs((z**2).mean() - 1) < 5 * 0.00448
    assert abs((z**4).mean() - 3) < 5 * 0.031


@given(key=words, count=st.integers(0, 200))
@settings(deadline=None)
def test_permutation_is_the_stable_argsort_of_the_numbers(key: int, count: int) -> None:
    drawn = plain_numbers(key, count)
    order = permutation(np.uint64(key), count)
    assert order.dtype == np.int64
    # Python's sort is stable.
    assert order.tolist() == sorted(range(count), key=drawn.__getitem__)
    assert sorted(order.tolist()) == list(range(count))


def test_every_permutation_of_three_comes_up() -> None:
    orders = [tuple(permutation(draw_key(0, "order", i), 3).tolist()) for i in range(600)]
    counts = {order: orders.count(order) for order in set(orders)}
    # 3! orders, 100 of each expected with standard deviation sqrt(600 * 1/6 * 5/6) = 9.1.
    assert len(counts) == 6
    assert all(abs(count - 100) < 5 * 9.1 for count in counts.values())


@given(words, st.integers(1, 5000), st.integers(1, 700))
@settings(max_examples=60, deadline=None)
def test_a_walk_comes_by_each_number_once_however_it_is_cut(key: int, count: int, stretch: int) -> None:
    places = walk_length(count)
    assert places >= max(count, 256)
    # A power of four, and the least: a Feistel network has two halves of equal size.
    assert (places.bit_length() - 1) % 2 == 0
    assert places == 256 or places < 4 * count
    parts = [walk(key, count, start, min(start + stretch, places)) for start in range(0, places, stretch)]
    place, number = (np.concatenate(column) for column in zip(*parts, strict=True))
    assert sorted(number.tolist()) == list(range(count))
    assert np.all(np.diff(place) > 0)
    whole = walk(key, count, 0, places)
    np.testing.assert_array_equal(whole[0], place)
    np.testing.assert_array_equal(whole[1], number)


def test_walks_of_many_keys_start_anywhere() -> None:
    # The first number of 20,000 walks over ten, 2,000 each in the mean with a deviation of 42; likewise of pairs, 222
    # of 90 with a deviation of 15.
    keys = draw_key(1, "test", np.arange(20_000))
    firsts = np.array([walk(key, 10, 0, 256)[1][:2] for key in keys])
    assert np.abs(np.bincount(firsts[:, 0], minlength=10) - 2000).max() < 5 * 42
    pairs = np.bincount(firsts[:, 0] * 10 + firsts[:, 1], minlength=100).reshape(10, 10)
    assert np.abs(pairs[~np.eye(10, dtype=bool)] - 222).max() < 5 * 15


def test_many_seeds_make_the_keys_of_each() -> None:
    seeds = np.array([0, 7, 2**62])
    keys = draw_key(seeds[:, np.newaxis], "epoch", np.arange(4))
    assert keys.tolist() == [[int(draw_key(int(seed), "epoch", epoch)) for epoch in range(4)] for seed in seeds]
    assert draw_key(seeds, "plain").tolist() == [int(draw_key(int(seed), "plain")) for seed in seeds]


def test_permutations_of_several_lengths_are_those_of_each() -> None:
    keys, counts = draw_key(3, "order", np.arange(5)), np.array([0, 1, 4, 9, 9])
    table = permutations(keys, counts, 9)
    for key, count, row in zip(keys, counts.tolist(), table, strict=True):
        assert row[:count].tolist() == permutation(key, count).tolist()
        # What is beyond stays in its place.
        assert row[count:].tolist() == list(range(count, 9))
