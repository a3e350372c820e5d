"""Bits that can be drawn again, and bits that cannot."""

import numpy as np
from scipy import stats

from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.privacy.random_bits import keyed_bits, normals, secret_bits, uniforms


def test_keyed_bits_are_those_of_their_purpose_and_version() -> None:
    first, again = keyed_bits(7)("noise", 3), keyed_bits(7)("noise", 3)
    one, two = first(5), first(5)
    np.testing.assert_array_equal(again(5), one)
    np.testing.assert_array_equal(again(5), two)
    assert not np.array_equal(one, two)
    for other in (keyed_bits(8)("noise", 3), keyed_bits(7)("count", 3), keyed_bits(7)("noise", 4)):
        assert not np.array_equal(other(5), one)


def test_secret_bits_are_never_the_same() -> None:
    bits = secret_bits()("noise", 3)
    drawn = np.concatenate([bits(1000), bits(1000), secret_bits()("noise", 3)(1000)])
    assert len(np.unique(drawn)) == 3000
    # Ones among 192,000 bits: 96,000 in the mean, standard deviation sqrt(192,000) / 2 = 219; six of them.
    ones = int(np.unpackbits(drawn.view(np.uint8)).sum())
    assert abs(ones - 96_000) < 6 * 219


def test_normals_are_normal() -> None:
    found = normals(keyed_bits(1)("noise", 0), 200_000)
    # A true sampler fails one seed in a thousand; this seed is fixed.
    assert stats.kstest(found, "norm").pvalue > 1e-3
    # Far out too: beyond three standard deviations are 200,000 * 0.0027 = 540, give or take sqrt(540) = 23.
    assert abs(int((np.abs(found) > 3.0).sum()) - 540) < 4 * 23


def test_normals_are_as_those_of_draws() -> None:
    def bits(count: int) -> np.ndarray:
        return numbers.pop(0)[:count]

    from pocketfleet.training.draws import numbers as of_key

    both = of_key(draw_key(1, "x"), 20)
    numbers = [both[:10], both[10:]]
    np.testing.assert_array_equal(normals(bits, 10), normal(draw_key(1, "x"), 10))


def test_uniforms_fill_the_unit_interval() -> None:
    found = uniforms(keyed_bits(1)("noise", 0), 100_000)
    assert 0.0 <= found.min() < found.max() < 1.0
    assert stats.kstest(found, "uniform").pvalue > 1e-3
