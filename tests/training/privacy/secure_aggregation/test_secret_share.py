import secrets

import pytest
import shamirs
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.training.privacy.secure_aggregation.secret_share import PRIME, SHARE_BYTES, restored, shared


@given(st.binary(min_size=32, max_size=32), st.integers(2, 12), st.data())
@settings(deadline=None)
def test_any_threshold_of_the_shares_restore_the_secret(secret: bytes, holders: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, holders))
    shares = dict(enumerate(shared(secret, holders=holders, threshold=threshold)))
    assert {len(share) for share in shares.values()} == {SHARE_BYTES}
    kept = data.draw(st.permutations(range(holders)))[:threshold]
    assert restored({place: shares[place] for place in kept}) == secret
    assert restored(shares) == secret


def test_restoring_is_the_librarys_interpolation() -> None:
    secret = secrets.token_bytes(32)
    shares = shared(secret, holders=9, threshold=5)
    points = [
        shamirs.share(place + 1, int.from_bytes(share, "little"), PRIME) for place, share in enumerate(shares[2:7], 2)
    ]
    assert shamirs.interpolate(points) == int.from_bytes(secret, "little")


def test_fewer_shares_fit_any_secret() -> None:
    """To shares of two holders of a threshold of three, a third can be made for whatever secret."""
    shares = shared(b"\1" * 32, holders=3, threshold=3)
    first, second = (int.from_bytes(share, "little") for share in shares[:2])
    # Of the parabola through (0, s), (1, a), (2, b) the value at 3 is s - 3 a + 3 b.
    third = (int.from_bytes(b"\2" * 32, "little") - 3 * first + 3 * second) % PRIME
    assert restored({0: shares[0], 1: shares[1], 2: third.to_bytes(33, "little")}) == b"\2" * 32


def test_what_cannot_be_shares_is_refused() -> None:
    # Of one holder and a threshold of one the share is the secret: one above 32 bytes.
    with pytest.raises(ValueError, match="no shares of one secret"):
        restored({0: (2**256 + 5).to_bytes(33, "little")})


def test_the_field_is_one() -> None:
    """By Miller and Rabin's test with 64 random bases: each lets a composite pass at most one time in four."""
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(64):
        power = pow(2 + secrets.randbelow(PRIME - 3), odd, PRIME)
        seen = [power := power if step == 0 else power * power % PRIME for step in range(twos)]
        assert seen[0] == 1 or PRIME - 1 in seen
