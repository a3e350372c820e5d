"""The simulator's count of who is needed for a secure sum, against the server that makes it."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pocketfleet.device_sim.secure_group import SecureGroup
from pocketfleet.training.privacy.secure_aggregation.client import SecureClient
from pocketfleet.training.privacy.secure_aggregation.messages import STAGES, NoSumError
from pocketfleet.training.privacy.secure_aggregation.neighbourhood import Neighbourhood
from pocketfleet.training.privacy.secure_aggregation.server import SecureServer
from pocketfleet.training.privacy.secure_aggregation.settings import SecureSettings

SETTINGS = SecureSettings(vector_length=3, ring_bytes=4)


def carried_out(neighbourhood: Neighbourhood, answered: np.ndarray) -> str:
    """The stage after which the protocol itself has no sum, ``""``: it has one."""
    clients = [SecureClient(SETTINGS) for _ in answered]
    server = SecureServer(SETTINGS, neighbourhood, [client.keys() for client in clients])
    try:
        for place in np.flatnonzero(answered > 0).tolist():
            server.take_shares(place, clients[place].shares(server.roster(place)))
        server.close_shares()
        for place in np.flatnonzero(answered > 1).tolist():
            vector = np.full(3, place, SETTINGS.dtype)
            server.take_masked(place, clients[place].masked(server.shares_for(place), vector))
        server.close_masked()
        for place in np.flatnonzero(answered > 2).tolist():
            server.take_unmask(place, clients[place].unmask(server.survivors_for(place)))
        total, members = server.sum()
    except NoSumError as exc:
        return exc.stage
    assert members.tolist() == np.flatnonzero(answered > 1).tolist()
    assert total.tolist() == [int(members.sum())] * 3
    return ""


def up_to(answered: np.ndarray, stage: int) -> np.ndarray:
    """The count of answers when a stage is over."""
    return np.minimum(answered, stage + 1).astype(np.int8)


@st.composite
def groups(draw: st.DrawFn) -> tuple[Neighbourhood, np.ndarray]:
    members = draw(st.integers(2, 14))
    degree = draw(st.sampled_from([*range(2, members - 1, 2), members - 1]))
    threshold = draw(st.integers((degree + 1) // 2 + 1, degree + 1))
    answered = draw(st.lists(st.sampled_from([0, 1, 2, 3, 3, 3, 3, 3]), min_size=members, max_size=members))
    seed = draw(st.integers(0, 2**20))
    drawn = Neighbourhood.drawn(members, degree=degree, threshold=threshold, seed=seed)
    return drawn, np.array(answered, dtype=np.int8)


@settings(max_examples=60, deadline=None)
@given(groups())
def test_there_is_a_sum_where_the_protocol_makes_one(group: tuple[Neighbourhood, np.ndarray]) -> None:
    neighbourhood, answered = group
    counted = SecureGroup(SETTINGS, neighbourhood)
    ends = [name for stage, name in enumerate(STAGES) if counted.no_sum(stage, up_to(answered, stage))]
    assert (ends[0] if ends else "") == carried_out(neighbourhood, answered)


@settings(max_examples=40, deadline=None)
@given(groups(), st.randoms(use_true_random=False))
def test_the_last_stage_is_over_when_the_shares_are_there(group, dice) -> None:
    neighbourhood, answered = group
    counted, earlier = SecureGroup(SETTINGS, neighbourhood), up_to(answered, 1)
    assume(not counted.no_sum(0, up_to(answered, 0)) and not counted.no_sum(1, earlier))
    order = np.flatnonzero(answered > 2)
    dice.shuffle(order)
    answer_s = np.full(len(answered), np.inf)
    answer_s[order] = np.arange(1.0, len(order) + 1.0)
    found_s = counted.enough_s(earlier, answer_s)
    for count in range(len(order) + 1):
        so_far = earlier.copy()
        so_far[order[:count]] = 3
        assert (counted.no_sum(2, so_far) == "") == (count >= found_s)


def test_sizes_are_those_of_the_messages() -> None:
    neighbourhood = Neighbourhood.drawn(6, degree=4, threshold=4, seed=1)
    clients = [SecureClient(SETTINGS) for _ in range(6)]
    server = SecureServer(SETTINGS, neighbourhood, [client.keys() for client in clients])
    counted = SecureGroup(SETTINGS, neighbourhood)
    rosters = [server.roster(place) for place in range(6)]
    shares = [client.shares(roster) for client, roster in zip(clients, rosters, strict=True)]
    assert counted.stage_bytes(0) == (len(rosters[0]), len(shares[0]))
    for place, message in enumerate(shares):
        server.take_shares(place, message)
    server.close_shares()
    given_ = server.shares_for(0)
    masked = clients[0].masked(given_, np.zeros(3, SETTINGS.dtype))
    assert counted.stage_bytes(1) == (len(given_), len(masked))


@pytest.mark.parametrize("answered", [[0, 3], [3, 1]])
def test_of_two_both_are_needed(answered: list[int]) -> None:
    neighbourhood = Neighbourhood.drawn(2, degree=1, threshold=2, seed=1)
    counted = SecureGroup(SETTINGS, neighbourhood)
    reasons = [counted.no_sum(stage, up_to(np.array(answered), stage)) for stage in range(3)]
    assert any("1 of 2 members answered" in reason for reason in reasons)
