"""The whole protocol: exact sums, or none and the reason; and what the server holds on the way."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from secure_group import SecureGroup, complete, plain_sum, ring_vectors

from pocketfleet.training.privacy.secure_aggregation.client import SecureClient
from pocketfleet.training.privacy.secure_aggregation.messages import NoSumError, SecureAggregationError, packed
from pocketfleet.training.privacy.secure_aggregation.neighbourhood import Neighbourhood, chosen_degree
from pocketfleet.training.privacy.secure_aggregation.server import SecureServer
from pocketfleet.training.privacy.secure_aggregation.settings import SecureSettings

ONE_BYTE = SecureSettings(vector_length=65_536, ring_bytes=1)
# The masks are of the operating system's generator: no seed can be fixed. A sound one fails such a test once in a
# million runs.
SIGNIFICANCE = 1e-6


@st.composite
def groups(draw: st.DrawFn) -> SecureGroup:
    members = draw(st.integers(2, 60))
    if draw(st.booleans()) or members < 4:
        degree, threshold = chosen_degree(members, corrupt_ratio=0.1, dropout_ratio=0.2)
    else:
        degree = 2 * draw(st.integers(1, min(10, (members - 1) // 2)))
        threshold = draw(st.integers((degree + 1) // 2 + 1, degree + 1))
    neighbourhood = Neighbourhood.drawn(members, degree=degree, threshold=threshold, seed=draw(st.integers(0, 9)))
    # One in so many leaves, so that cohorts above and below the threshold come in numbers.
    staying = draw(st.sampled_from([3, 8, 30, 90]))
    leaving = draw(st.lists(st.sampled_from([0] * staying + [1, 2, 3]), min_size=members, max_size=members))
    form = SecureSettings(vector_length=draw(st.integers(1, 9)), ring_bytes=draw(st.integers(1, 8)))
    return SecureGroup(neighbourhood, form, leaving, seed=draw(st.integers(0, 9)))


def expected_end(group: SecureGroup) -> str:
    """Where there is no sum, by the rules as they are written, with sets: a stage, or "sum"."""
    neighbourhood, threshold = group.server.neighbourhood, group.server.neighbourhood.threshold
    holders = [set(neighbourhood.holders(place)) for place in range(group.members)]
    shared, inside, answered = (set(group.staying(stage)) for stage in (1, 2, 3))
    if len(shared) < 2 or any(len(holders[place] & shared) < threshold for place in shared):
        return "shares"
    needed = inside | {place for place in shared - inside if holders[place] & inside}
    if len(inside) < 2 or any(len(holders[place] & inside) < threshold for place in needed):
        return "masked"
    reached = {min(inside)}
    for _ in inside:
        reached |= {place for place in inside if holders[place] & reached}
    if reached != inside:
        return "masked"
    return "unmask" if any(len(holders[place] & answered) < threshold for place in needed) else "sum"


@given(groups())
@settings(max_examples=60, deadline=None)
def test_the_unmasked_sum_is_the_plain_one_bit_for_bit_or_there_is_none_and_the_reason(group: SecureGroup) -> None:
    end = expected_end(group)
    event(end)
    if end != "sum":
        with pytest.raises(NoSumError, match=r"members|neighbour") as caught:
            group.sum()
        assert caught.value.stage == end
        assert group.server.stage == "ended"
        return
    total, places = group.sum()
    assert places.tolist() == group.staying(2)
    assert total.tolist() == plain_sum(group.vectors, places, group.settings)


def test_two_have_a_sum_and_one_of_two_has_none() -> None:
    form = SecureSettings(vector_length=3, ring_bytes=4)
    total, places = SecureGroup(complete(2), form).sum()
    assert total.tolist() == plain_sum(ring_vectors(2, form), places, form)
    for stage, name in ((1, "shares"), (2, "masked"), (3, "unmask")):
        with pytest.raises(NoSumError) as caught:
            SecureGroup(complete(2), form, [0, stage]).sum()
        assert caught.value.stage == name


@pytest.mark.parametrize(("stage", "name", "what"), [(1, "shares", "sent shares"), (2, "masked", "a masked vector")])
def test_fewer_members_than_the_minimum_have_no_sum_though_the_threshold_holds(
    stage: int, name: str, what: str
) -> None:
    form = SecureSettings(vector_length=3, ring_bytes=4, minimum=5)
    assert len(SecureGroup(complete(6), form, [0, 0, 0, 0, 0, stage]).sum()[1]) == 5
    with pytest.raises(NoSumError, match=f"4 of 6 members .*{what}, 5 must") as caught:
        SecureGroup(complete(6), form, [0, 0, 0, 0, stage, stage]).sum()
    assert caught.value.stage == name


def test_what_the_server_holds_before_unmasking_is_uniform() -> None:
    """Of vectors that are all zeros: single ones, differences of two, and sums of some and of all."""
    group = SecureGroup(complete(4), ONE_BYTE)
    group.share()
    held = []
    for place in range(4):
        sent = group.clients[place].masked(group.server.shares_for(place), np.zeros(65_536, np.uint8))
        group.server.take_masked(place, sent)
        held += [np.frombuffer(sent, np.uint8), group.server.running_sum.copy()]
    held += [held[0] - held[2], held[0] + held[2] + held[4]]
    assert all(uniform(one) for one in held)
    # Pairwise masks alone would leave the sum of all in clear: the test can tell.
    assert not uniform(np.zeros(65_536, np.uint8))
    skewed = held[0].copy()
    # 300 of the 65,536 bytes moved to one value: 300**2 / 256 is beyond the limit of about 370.
    skewed[:300] = 7
    assert not uniform(skewed)


def uniform(found: np.ndarray) -> bool:
    """Chi-square over the 256 values of a byte, 65,536 / 256 = 256 expected of each."""
    counts = np.bincount(found, minlength=256)
    return float(((counts - 256.0) ** 2 / 256.0).sum()) < chi2.isf(SIGNIFICANCE, 255)


def test_no_two_rounds_mask_alike() -> None:
    vector = np.zeros(65_536, np.uint8)
    sent = []
    for _ in range(2):
        group = SecureGroup(complete(3), ONE_BYTE)
        group.share()
        sent.append(group.clients[0].masked(group.server.shares_for(0), vector))
    # Of 65,536 bytes 256 agree by chance, 16 of them a standard deviation.
    assert abs(sum(one == other for one, other in zip(*sent, strict=True)) - 256) < 6 * 16


def test_the_server_holds_no_vector_of_a_member() -> None:
    """Everything it can reach is searched, before and after the sum, for vectors in clear and as they were sent."""
    form = SecureSettings(vector_length=64, ring_bytes=4)
    group = SecureGroup(complete(5), form, [0, 0, 0, 2, 0])
    group.transcript.messages.clear()
    group.server._record = None
    group.share()
    sent = []
    for place in group.staying(2):
        sent.append(group.clients[place].masked(group.server.shares_for(place), group.vectors[place]))
        group.server.take_masked(place, sent[-1])
    secret = [*sent, *(packed(vector, form) for vector in group.vectors)]
    assert not any(found(group.server, one) for one in secret)
    group.server.close_masked()
    group.unmask()
    total, _ = group.server.sum()
    assert not any(found(group.server, one) for one in secret)
    assert found(group.server, packed(total, form))


def found(thing: object, wanted: bytes) -> bool:
    """Whether bytes are anywhere in an object's attributes and containers."""
    if isinstance(thing, bytes):
        return wanted in thing
    if isinstance(thing, np.ndarray):
        return wanted in thing.tobytes()
    if isinstance(thing, dict):
        return any(found(one, wanted) for pair in thing.items() for one in pair)
    if isinstance(thing, list | tuple | set):
        return any(found(one, wanted) for one in thing)
    return any(found(one, wanted) for one in getattr(thing, "__dict__", {}).values())


def test_messages_out_of_turn_change_nothing() -> None:
    form = SecureSettings(vector_length=4, ring_bytes=2)
    group = SecureGroup(complete(4), form, [0, 0, 0, 2])
    server, clients = group.server, group.clients
    refused: Counter[str] = Counter()

    def refuse(match: str, call: object, *arguments: object) -> None:
        with pytest.raises(SecureAggregationError, match=match):
            call(*arguments)  # type: ignore[operator]
        refused[match] += 1

    refuse("stage 'shares', not in 'masked'", server.shares_for, 0)
    refuse("stage 'shares', not in 'unmask'", server.sum)
    refuse("members are 0..3, got 4", server.roster, 4)
    refuse("members are 0..3, got -1", server.roster, -1)
    shares = clients[0].shares(server.roster(0))
    refuse("shares for 3 neighbours have 282 bytes, got 281", server.take_shares, 0, shares[:-1])
    server.take_shares(0, shares)
    refuse("member 0 has done the stage 'shares'", server.take_shares, 0, shares)
    for place in (1, 2, 3):
        server.take_shares(place, clients[place].shares(server.roster(place)))
    server.close_shares()
    sent = [clients[place].masked(server.shares_for(place), group.vectors[place]) for place in range(3)]
    refuse("a vector of 4 numbers has 8 bytes, got 9", server.take_masked, 0, sent[0] + b"\0")
    for place in range(3):
        server.take_masked(place, sent[place])
    refuse("member 0 has done the stage 'masked'", server.take_masked, 0, sent[0])
    server.close_masked()
    refuse("member 3 has dropped out before the stage 'unmask'", server.survivors_for, 3)
    answers = [clients[place].unmask(server.survivors_for(place)) for place in range(3)]
    refuse("must have 136 bytes, got 0", server.take_unmask, 0, b"")
    refuse("of member 0 a share of kind 1 is wanted, got 2", server.take_unmask, 0, b"\2" + answers[0][1:])
    for place in range(3):
        assert server.restorable == (place == 3)
        server.take_unmask(place, answers[place])
    assert server.restorable
    refuse("member 2 has done the stage 'unmask'", server.take_unmask, 2, answers[2])
    total, places = server.sum()
    assert total.tolist() == plain_sum(group.vectors, places, form)
    refuse("stage 'ended', not in 'unmask'", server.sum)
    assert len(refused) == 13


def test_shares_that_restore_another_key_end_without_a_sum() -> None:
    form = SecureSettings(vector_length=4, ring_bytes=2)
    group = SecureGroup(complete(3), form, [0, 0, 2])
    group.share()
    group.mask()
    for place in (0, 1):
        answer = bytearray(group.clients[place].unmask(group.server.survivors_for(place)))
        # Of the share of member 2's key, the last of three; not in its lowest bits, three of which X25519 ignores.
        answer[-20] ^= 1
        group.server.take_unmask(place, bytes(answer))
    with pytest.raises(NoSumError, match=r"member 2 (restore another key|do not fit together)"):
        group.server.sum()


GOOD = SecureClient(ONE_BYTE).keys()


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ([GOOD], "keys of 2 members are needed, got 1"),
        ([GOOD, GOOD[:63]], "public keys have 64 bytes, got 63"),
        ([GOOD, bytes(32) + GOOD[32:]], "cannot be agreed with"),
        ([GOOD, GOOD[:32] + bytes(32)], "cannot be agreed with"),
        ([GOOD, GOOD], "two members sent the same keys"),
    ],
    ids=["one", "short", "mask key", "share key", "same"],
)
def test_keys_are_refused(keys: list[bytes], match: str) -> None:
    with pytest.raises(SecureAggregationError, match=match):
        SecureServer(ONE_BYTE, complete(2), keys)


def ring_of_eight() -> tuple[Neighbourhood, list[int]]:
    """Each with its two neighbours, both of whom or itself and one must stay; and the members in their order on it."""
    neighbourhood = Neighbourhood.drawn(8, degree=2, threshold=2, seed=3)
    ring = [0]
    while len(ring) < 8:
        ring.append(next(place for place in neighbourhood.neighbours[ring[-1]].tolist() if place not in ring))
    return neighbourhood, ring


def test_a_graph_that_falls_apart_gives_no_sum() -> None:
    """Two halves, each of which could be unmasked: each would have a sum of its own."""
    neighbourhood, ring = ring_of_eight()
    leaving = [0] * 8
    leaving[ring[0]] = leaving[ring[4]] = 2
    group = SecureGroup(neighbourhood, SecureSettings(vector_length=1, ring_bytes=1), leaving)
    with pytest.raises(NoSumError, match="fall into parts") as caught:
        group.sum()
    assert caught.value.stage == "masked"


def test_members_that_masked_with_nobody_in_the_sum_are_not_needed() -> None:
    """Two share with each other alone, and both leave: no mask of theirs is in the sum of the other four."""
    neighbourhood, ring = ring_of_eight()
    leaving = [0] * 8
    for place, stage in ((0, 2), (1, 2), (2, 1), (7, 1)):
        leaving[ring[place]] = stage
    group = SecureGroup(neighbourhood, SecureSettings(vector_length=2, ring_bytes=4), leaving)
    total, places = group.sum()
    assert sorted(places.tolist()) == sorted(ring[3:7])
    assert total.tolist() == plain_sum(group.vectors, places, group.settings)
