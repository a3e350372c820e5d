"""A secret of 32 bytes among holders, so that any ``threshold`` of them can restore it and fewer learn nothing.

Shamir 1979, "How to share a secret" (doi 10.1145/359168.359176), over a prime field. The library ``shamirs`` draws
the polynomial from the operating system's generator and evaluates it; restoring is Lagrange's formula at zero, here,
as the library's own takes a second for fifty shares (version 4.0) where this takes a millisecond.
"""

from collections.abc import Mapping

import shamirs

__all__ = ["SECRET_BYTES", "SHARE_BYTES", "restored", "shared"]

SECRET_BYTES = 32
# The least prime above 2 ** 256: every secret is a number of its field. A test proves it prime.
PRIME = 2**256 + 297
SHARE_BYTES = 33


def shared(secret: bytes, *, holders: int, threshold: int) -> list[bytes]:
    """A share a holder, 33 bytes each; the ``i``-th is the polynomial's value at ``i + 1``.

    Args:
        secret: 32 bytes.
        holders: 2 or more.
        threshold: 1 to ``holders``.
    """
    number = int.from_bytes(secret, "little")
    points = shamirs.shares(number, quantity=holders, modulus=PRIME, threshold=threshold, compact=True)
    return [int(point[1]).to_bytes(SHARE_BYTES, "little") for point in points]


def restored(shares: Mapping[int, bytes]) -> bytes:
    """The secret of shares by their holder's number ``i``; of fewer than the threshold, or of altered ones, another.

    Raises:
        ValueError: what they restore is longer than a secret, so they cannot be shares of one.
    """
    points = [(place + 1, int.from_bytes(share, "little")) for place, share in shares.items()]
    total = 0
    for here, value in points:
        above = below = 1
        for other, _ in points:
            if other != here:
                above = above * other % PRIME
                below = below * (other - here) % PRIME
        total += value * above * pow(below, -1, PRIME)
    secret = total % PRIME
    if secret >> (8 * SECRET_BYTES):
        raise ValueError("these are no shares of one secret")
    return secret.to_bytes(SECRET_BYTES, "little")
