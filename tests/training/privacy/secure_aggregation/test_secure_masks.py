import hmac

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.training.privacy.secure_aggregation.masks import add_masks, agreed_key, self_mask_key


def plain_mask(key: bytes, length: int, word: np.dtype) -> list[int]:
    """The whole keystream at once."""
    stream = Cipher(AES256(key), CTR(bytes(16))).encryptor().update(bytes(length * word.itemsize))
    return [int(number) for number in np.frombuffer(stream, word)]


@given(st.sampled_from([1, 2, 4, 8]), st.integers(1, 40), st.integers(0, 3), st.integers(0, 3))
@settings(deadline=None, max_examples=30)
def test_masks_are_added_and_taken_away_modulo_the_word(word_bytes: int, length: int, more: int, less: int) -> None:
    word = np.dtype(f"<u{word_bytes}")
    plus, minus = [bytes([1, i] * 16) for i in range(more)], [bytes([2, i] * 16) for i in range(less)]
    vector = np.arange(length, dtype=word)
    add_masks(vector, plus=plus, minus=minus)
    expected = list(range(length))
    for sign, keys in ((1, plus), (-1, minus)):
        for key in keys:
            expected = [old + sign * new for old, new in zip(expected, plain_mask(key, length, word), strict=True)]
    assert vector.tolist() == [number % 2 ** (8 * word_bytes) for number in expected]


@pytest.mark.parametrize("length", [16_383, 16_384, 16_385, 40_001])
def test_pieces_of_a_long_vector_are_of_one_stream(length: int) -> None:
    """A piece is 65,536 bytes: 16,384 words."""
    vector = np.zeros(length, np.uint32)
    add_masks(vector, plus=[b"k" * 32])
    assert vector.tolist() == plain_mask(b"k" * 32, length, vector.dtype)


def test_masks_cancel() -> None:
    vector = np.arange(50_000, dtype=np.uint64)
    add_masks(vector, plus=[b"a" * 32, b"b" * 32])
    add_masks(vector, minus=[b"b" * 32, b"a" * 32])
    assert np.array_equal(vector, np.arange(50_000))


def test_both_sides_agree_and_purposes_do_not() -> None:
    one, two = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    public = [key.public_key().public_bytes_raw() for key in (one, two)]
    key = agreed_key(one, public[0], public[1], purpose="pair mask")
    assert len(key) == 32
    assert agreed_key(two, public[1], public[0], purpose="pair mask") == key
    assert agreed_key(two, public[1], public[0], purpose="shares") != key
    third = X25519PrivateKey.generate().public_key().public_bytes_raw()
    assert agreed_key(one, public[0], third, purpose="pair mask") != key


def test_keys_are_bound_to_purpose_and_public_keys() -> None:
    """RFC 5869 with HMAC alone: extract with a salt of zeros, then one block of expansion."""
    one, two = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    public = [key.public_key().public_bytes_raw() for key in (one, two)]
    extracted = hmac.digest(bytes(32), one.exchange(two.public_key()), "sha256")
    info = b"pocketfleet secure aggregation 1 pair mask " + b"".join(sorted(public))
    key = agreed_key(one, public[0], public[1], purpose="pair mask")
    assert key == hmac.digest(extracted, info + b"\1", "sha256")


def test_a_seed_is_not_its_key() -> None:
    assert self_mask_key(bytes(32)) != bytes(32)
    assert self_mask_key(bytes(32)) != self_mask_key(b"\1" + bytes(31))


def test_a_point_of_low_order_is_refused() -> None:
    own = X25519PrivateKey.generate()
    with pytest.raises(ValueError, match="shared key"):
        agreed_key(own, own.public_key().public_bytes_raw(), bytes(32), purpose="shares")
