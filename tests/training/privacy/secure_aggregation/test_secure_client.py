import numpy as np
import pytest
from secure_group import SecureGroup, complete

from pocketfleet.training.privacy.secure_aggregation.client import SecureClient
from pocketfleet.training.privacy.secure_aggregation.messages import (
    KEY,
    SEALED_BYTES,
    SEED,
    Roster,
    SecureAggregationError,
    Survivors,
)
from pocketfleet.training.privacy.secure_aggregation.settings import SecureSettings

FORM = SecureSettings(vector_length=4, ring_bytes=2)


def masked_group(leaving: tuple[int, ...] = (0, 0, 0, 0)) -> SecureGroup:
    group = SecureGroup(complete(len(leaving)), FORM, leaving)
    group.share()
    group.mask()
    return group


def request(members: int, **wanted: int) -> bytes:
    return Survivors(members=members, wanted={int(place[1:]): kind for place, kind in wanted.items()}).to_bytes()


@pytest.mark.parametrize(
    ("survivors", "match"),
    [
        (request(4, m0=SEED, m1=SEED | KEY, m2=SEED, m3=SEED), "both kinds of shares of member 1"),
        (request(4, m0=SEED, m1=4, m2=SEED, m3=SEED), "0, 1 or 2, got 4"),
        (request(4, m0=SEED, m1=SEED, m2=SEED, m4=SEED), "member 4 is no neighbour"),
        (request(4, m0=KEY, m1=SEED, m2=SEED, m3=SEED), "takes it for dropped out"),
        (request(2, m0=SEED, m1=SEED, m2=KEY, m3=KEY), "2 of the 4 holders .* threshold is 3"),
        (request(4, m0=SEED, m1=SEED, m2=SEED, m3=0), "member 3 has sent its shares"),
        (request(2, m0=SEED, m1=SEED, m2=SEED, m3=KEY), "of 3 members or more, got 2"),
        (request(4, m0=SEED, m1=SEED, m3=SEED, m2=SEED), "each holder once, in ascending order"),
        (request(4, m0=SEED, m1=SEED, m2=SEED), "24 bytes for 3 neighbours, got 19"),
        (b"", "24 bytes for 3 neighbours, got 0"),
    ],
)
def test_what_a_member_does_not_unmask(survivors: bytes, match: str) -> None:
    group = masked_group()
    with pytest.raises(SecureAggregationError, match=match):
        group.clients[0].unmask(survivors)
    # Nothing has changed: the right request is answered.
    assert len(group.clients[0].unmask(group.server.survivors_for(0))) == 4 * 34


def test_a_server_that_asks_for_the_other_kind_afterwards_is_refused() -> None:
    group = masked_group((0, 0, 0, 0, 0))
    first = request(5, m0=SEED, m1=SEED, m2=SEED, m3=SEED, m4=SEED)
    answer = group.clients[0].unmask(first)
    with pytest.raises(SecureAggregationError, match="both kinds of shares of one"):
        group.clients[0].unmask(request(4, m0=SEED, m1=KEY, m2=SEED, m3=SEED, m4=SEED))
    assert group.clients[0].unmask(first) == answer


def test_an_absent_members_share_is_not_asked_for() -> None:
    group = masked_group((0, 0, 0, 1))
    with pytest.raises(SecureAggregationError, match="no shares of member 3 came"):
        group.clients[0].unmask(request(3, m0=SEED, m1=SEED, m2=SEED, m3=KEY))


def test_fewer_members_than_a_member_wants_are_refused() -> None:
    group = SecureGroup(complete(4), SecureSettings(vector_length=4, ring_bytes=2, minimum=4))
    group.share()
    group.mask()
    with pytest.raises(SecureAggregationError, match="of 4 members or more, got 3"):
        group.clients[0].unmask(request(3, m0=SEED, m1=SEED, m2=SEED, m3=KEY))


@pytest.mark.parametrize("place", range(0, 3 * (1 + SEALED_BYTES), 19))
def test_altered_shares_are_refused(place: int) -> None:
    """At the mark that they came, in nonce, in share and in tag."""
    group = SecureGroup(complete(4), FORM)
    group.share()
    altered = bytearray(group.server.shares_for(0))
    altered[place] ^= 1
    with pytest.raises(SecureAggregationError, match=f"shares of member {1 + place // 95} are altered"):
        group.clients[0].masked(bytes(altered), group.vectors[0])
    assert group.clients[0].masked(group.server.shares_for(0), group.vectors[0])


def test_shares_for_another_member_are_refused() -> None:
    group = SecureGroup(complete(4), FORM)
    group.share()
    with pytest.raises(SecureAggregationError, match="not sealed for this one"):
        group.clients[0].masked(group.server.shares_for(1), group.vectors[0])


def test_too_few_shares_are_refused_before_anything_is_masked() -> None:
    group = SecureGroup(complete(4), FORM)
    group.share()
    came = group.server.shares_for(0)
    with pytest.raises(SecureAggregationError, match="2 holders of this member's secrets are left"):
        group.clients[0].masked(came[:95] + bytes(2 * 95), group.vectors[0])
    with pytest.raises(SecureAggregationError, match="must have 285 bytes, got 284"):
        group.clients[0].masked(came[:-1], group.vectors[0])


def test_a_vector_is_masked_once() -> None:
    group = masked_group()
    with pytest.raises(SecureAggregationError, match="it masks one a round"):
        group.clients[0].masked(bytes(3 * 95), group.vectors[1])


@pytest.mark.parametrize(
    ("vector", "match"),
    [
        (np.zeros(3, np.uint16), r"of shape \(4,\), got uint16 of shape \(3,\)"),
        (np.zeros(4, np.int64), "must be uint16"),
    ],
)
def test_other_vectors_are_refused(vector: np.ndarray, match: str) -> None:
    group = SecureGroup(complete(3), FORM)
    group.share()
    with pytest.raises(ValueError, match=match):
        group.clients[0].masked(group.server.shares_for(0), vector)


def test_numbers_beyond_the_ring_are_refused() -> None:
    group = SecureGroup(complete(3), SecureSettings(vector_length=2, ring_bytes=3))
    group.share()
    with pytest.raises(ValueError, match="must be below 16777216, got 16777216"):
        group.clients[0].masked(group.server.shares_for(0), np.array([0, 1 << 24], np.uint32))


def roster(keys: dict[int, bytes], *, members: int = 4, place: int = 0, threshold: int = 3) -> bytes:
    return Roster(members=members, place=place, threshold=threshold, keys=keys).to_bytes()


OTHERS = [SecureClient(FORM).keys() for _ in range(3)]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "at least 16 bytes, got 0"),
        (roster(dict(enumerate(OTHERS, 1)))[:-1], "has 220 bytes, got 219"),
        (roster(dict(enumerate(OTHERS, 2))), "member 0 of 4 got"),
        (roster(dict(enumerate(OTHERS, 0))), "member 0 of 4 got"),
        (roster({2: OTHERS[0], 1: OTHERS[1]}, threshold=2), "ascending"),
        (roster(dict(enumerate(OTHERS, 1)), place=4), "member 4 of 4"),
        (roster(dict(enumerate(OTHERS, 1)), threshold=2), "over half of the 4 holders .* got 2"),
        (roster(dict(enumerate(OTHERS, 1)), threshold=5), "at most all of them, got 5"),
        (roster({1: OTHERS[0], 2: OTHERS[0], 3: OTHERS[2]}), "same keys twice"),
        (roster({}, members=2, threshold=1), "a neighbour at least"),
        (roster({}, members=1, threshold=1), "2 members or more, got 1"),
        (roster({1: bytes(64), 2: OTHERS[1], 3: OTHERS[2]}), "cannot be agreed with"),
    ],
)
def test_a_roster_that_cannot_be_is_refused(data: bytes, match: str) -> None:
    client = SecureClient(FORM)
    with pytest.raises(SecureAggregationError, match=match):
        client.shares(data)
    assert len(client.shares(roster(dict(enumerate(OTHERS, 1))))) == 3 * SEALED_BYTES


def test_a_mask_key_that_cannot_be_agreed_with_is_refused() -> None:
    group = SecureGroup(complete(3), FORM)
    first = SecureClient(FORM)
    keys = {1: group.clients[1].keys(), 2: bytes(32) + group.clients[2].keys()[32:]}
    first.shares(roster(keys, members=3, threshold=2))
    seals = {}
    for place in (1, 2):
        others = {0: first.keys()} | {other: group.clients[other].keys() for other in (1, 2) if other != place}
        sent = group.clients[place].shares(roster(others, members=3, place=place, threshold=2))
        seals[place] = b"\1" + sent[:SEALED_BYTES]
    with pytest.raises(SecureAggregationError, match="cannot be agreed with"):
        first.masked(seals[1] + seals[2], group.vectors[0])


def test_a_members_own_keys_given_to_another_are_refused() -> None:
    client = SecureClient(FORM)
    with pytest.raises(SecureAggregationError, match="own keys to another"):
        client.shares(roster({1: client.keys(), 2: OTHERS[1], 3: OTHERS[2]}))


def test_one_roster_is_answered_and_the_same_bytes_again() -> None:
    client = SecureClient(FORM)
    first = roster(dict(enumerate(OTHERS, 1)))
    assert client.shares(first) == client.shares(first)
    with pytest.raises(SecureAggregationError, match="it answers one a round"):
        client.shares(roster(dict(enumerate(OTHERS, 1)), threshold=4))


def test_stages_come_in_their_order() -> None:
    client = SecureClient(FORM)
    with pytest.raises(SecureAggregationError, match="'masked' comes after 'shares'"):
        client.masked(b"", np.zeros(4, np.uint16))
    client.shares(roster(dict(enumerate(OTHERS, 1))))
    with pytest.raises(SecureAggregationError, match="'unmask' comes after 'masked'"):
        client.unmask(request(4, m0=SEED, m1=SEED, m2=SEED, m3=SEED))
