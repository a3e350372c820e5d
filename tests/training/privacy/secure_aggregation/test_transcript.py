import dataclasses

import pytest
from secure_group import SecureGroup, complete, plain_sum

from pocketfleet.training.privacy.secure_aggregation.messages import NoSumError, SecureAggregationError, packed
from pocketfleet.training.privacy.secure_aggregation.settings import SecureSettings
from pocketfleet.training.privacy.secure_aggregation.transcript import READABLE, Transcript, recomputed_sum

FORM = SecureSettings(vector_length=8, ring_bytes=5, minimum=3)


def test_the_sum_is_recomputed_from_the_recorded_messages_alone() -> None:
    group = SecureGroup(complete(8), FORM, [0, 1, 2, 3, 0, 0, 0, 0])
    total, places = group.sum()
    read = Transcript.from_bytes(group.transcript.to_bytes())
    again, members = recomputed_sum(read)
    assert again.tolist() == total.tolist() == plain_sum(group.vectors, places, FORM)
    assert members.tolist() == places.tolist() == [0, 3, 4, 5, 6, 7]
    assert read.messages == group.transcript.messages
    assert read.settings == FORM


def test_every_message_is_recorded_with_what_can_be_read_of_it() -> None:
    group = SecureGroup(complete(3), SecureSettings(vector_length=8, ring_bytes=5))
    group.sum()
    found = [(one.kind, one.member, one.up) for one in group.transcript.messages]
    assert found[:5] == [
        ("keys", 0, True), ("keys", 1, True), ("keys", 2, True), ("roster", 0, False), ("shares", 0, True),
    ]  # fmt: skip
    # Seven messages a member.
    assert len(found) == len(set(found)) == 21
    assert {one.readable for one in group.transcript.messages} == set(READABLE.values())
    assert not any(
        packed(vector, group.settings) in one.data for vector in group.vectors for one in group.transcript.messages
    )


def test_what_is_refused_is_not_recorded() -> None:
    group = SecureGroup(complete(3), FORM)
    before = len(group.transcript.messages)
    with pytest.raises(SecureAggregationError):
        group.server.take_shares(0, b"")
    assert len(group.transcript.messages) == before


def test_an_altered_vector_gives_another_sum_and_a_missing_answer_none() -> None:
    group = SecureGroup(complete(4), FORM)
    total, _ = group.sum()
    messages = group.transcript.messages
    place = next(i for i, one in enumerate(messages) if one.kind == "masked")
    altered = dataclasses.replace(messages[place], data=b"\xff" * 40)
    other, _ = recomputed_sum(Transcript(FORM, complete(4), [*messages[:place], altered, *messages[place + 1 :]]))
    assert other.tolist() != total.tolist()
    few = [one for one in messages if one.kind != "unmask" or one.member < 2]
    with pytest.raises(NoSumError, match="2 members answered"):
        recomputed_sum(Transcript(FORM, complete(4), few))


def test_bytes_that_are_no_base64_are_refused() -> None:
    written = SecureGroup(complete(3), SecureSettings(vector_length=8, ring_bytes=5)).transcript.to_bytes()
    assert written.count(b'"data": "') == 3
    with pytest.raises(SecureAggregationError, match="no transcript of a secure sum"):
        Transcript.from_bytes(written.replace(b'"data": "', b'"data": "!', 1))


@pytest.mark.parametrize("data", [b"", b"\xff", b"{}", b'{"vector_length": 1}\n', b"[]\n[]"])
def test_bytes_that_are_no_transcript_are_refused(data: bytes) -> None:
    with pytest.raises(SecureAggregationError, match="no transcript of a secure sum"):
        Transcript.from_bytes(data)
