"""Masks in a ring: a key of 32 bytes becomes the keystream of AES-256-CTR, a word a number of the vector.

A key makes one mask: keys are of one round and of one pair, or of one member's own seed, so the counter starts at
zero. Where ``ring_bytes`` is no length of a word, the word's upper bytes are computed and thrown away: the ring divides
the word's.

Keys come of X25519 (RFC 7748) and HKDF-SHA256 (RFC 5869), whose ``info`` binds them to their purpose and to both
public keys.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pocketfleet.training.privacy.secure_aggregation.messages import (
    KEYS_BYTES,
    PUBLIC_KEY_BYTES,
    SecureAggregationError,
)
from pocketfleet.training.privacy.secure_aggregation.settings import RingVector

__all__ = ["Purpose", "add_masks", "agreed_key", "check_keys", "self_mask_key"]

Purpose = Literal["pair mask", "shares"]

KEY_BYTES = 32
_LABEL = b"pocketfleet secure aggregation 1 "
# The piece of the vector that all masks are added to before the next, so that keystream, zeros and sum stay in the
# nearest caches. Measured on a core of 48 KiB and 2 MiB: 100 masks of 400 KB in 6.6 ms; 16 KiB take 15 ms, 256 KiB as
# long as 64.
_CHUNK_BYTES = 1 << 16
_ZEROS = bytes(_CHUNK_BYTES)
_COUNTER = bytes(16)
# CTR mode makes no block longer, but ``update_into`` asks for room for one less a byte.
_ROOM_BYTES = 15


def agreed_key(private: X25519PrivateKey, own: bytes, other: bytes, *, purpose: Purpose) -> bytes:
    """The key that two members agree on; the same from either side.

    Args:
        private: key of the one.
        own: its public key.
        other: public key of the other.
        purpose: what the key is for.

    Raises:
        ValueError: the other's key is no point that a secret can be agreed with.
    """
    secret = private.exchange(X25519PublicKey.from_public_bytes(other))
    return _expanded(secret, purpose, *sorted((own, other)))


def check_keys(keys: bytes) -> None:
    """Whether a member's public keys can be agreed with; a server that takes others loses all of their neighbours.

    Raises:
        SecureAggregationError: they are not two of 32 bytes, or one is a point of low order (RFC 7748, section 6.1).
    """
    if len(keys) != KEYS_BYTES:
        raise SecureAggregationError(f"a member's public keys have {KEYS_BYTES} bytes, got {len(keys)}")
    probe = X25519PrivateKey.generate()
    for start in range(0, KEYS_BYTES, PUBLIC_KEY_BYTES):
        try:
            probe.exchange(X25519PublicKey.from_public_bytes(keys[start : start + PUBLIC_KEY_BYTES]))
        except ValueError as exc:
            raise SecureAggregationError(f"a member's public key cannot be agreed with: {exc}") from exc


def self_mask_key(seed: bytes) -> bytes:
    """The key of a member's own mask, of its seed."""
    return _expanded(seed, "self mask")


def add_masks(vector: RingVector, *, plus: Sequence[bytes] = (), minus: Sequence[bytes] = ()) -> None:
    """Add the masks of keys to a vector in place, and take those of other keys away; modulo the word.

    Args:
        vector: contiguous, of a little-endian unsigned type.
        plus: keys whose masks are added.
        minus: keys whose masks are subtracted.
    """
    streams = [(_stream(key), np.add) for key in plus] + [(_stream(key), np.subtract) for key in minus]
    buffer = bytearray(_CHUNK_BYTES + _ROOM_BYTES)
    words = np.frombuffer(buffer, vector.dtype, count=_CHUNK_BYTES // vector.itemsize)
    for start in range(0, vector.size, words.size):
        piece = vector[start : start + words.size]
        zeros, mask = memoryview(_ZEROS)[: piece.nbytes], words[: piece.size]
        for stream, combine in streams:
            stream.update_into(zeros, buffer)
            combine(piece, mask, out=piece)


def _stream(key: bytes) -> CipherContext:
    return Cipher(AES256(key), CTR(_COUNTER)).encryptor()


def _expanded(secret: bytes, purpose: str, *public: bytes) -> bytes:
    info = _LABEL + purpose.encode() + b" " + b"".join(public)
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(secret)
