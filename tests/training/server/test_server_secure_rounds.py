"""The group of a closed round in the service: what it takes, what it refuses, when it goes on."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from pocketfleet.training.privacy.secure_aggregation.client import SecureClient
from pocketfleet.training.privacy.secure_aggregation.secure_plan import SecurePlan
from pocketfleet.training.privacy.secure_aggregation.transcript import Transcript, recomputed_sum
from pocketfleet.training.server.protocol import StageWait
from pocketfleet.training.server.refusal import RefusedError
from pocketfleet.training.server.secure_rounds import Member, SecureRounds, Summed
from pocketfleet.training.update import Update

DEADLINE_S = 30.0
LIKE = Update({"w": torch.zeros(3)}, {})
PLAN = SecurePlan(
    seed=5,
    value_range=8.0,
    bits=20,
    max_weight=16,
    cohort=4,
    minimum=2,
    rotation=False,
    ratio=1.0,
    max_norm=0.0,
    noise_stddev=0.0,
    like=LIKE,
    corrupt_ratio=0.1,
    dropout_ratio=0.1,
    stage_deadline_s=DEADLINE_S,
)


class Clock:
    """Seconds that go on when told, and wake whoever waits."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Phones:
    """Members of the group of round 3: assignment ``10 + i`` each."""

    def __init__(self, rounds: SecureRounds, count: int) -> None:
        self.rounds = rounds
        self.clients = [SecureClient(PLAN.settings) for _ in range(count)]
        self.values = [torch.tensor([float(i), 1.0, -float(i)]) for i in range(count)]

    @property
    def members(self) -> list[Member]:
        return [Member(10 + place, client.keys()) for place, client in enumerate(self.clients)]

    def message(self, place: int, stage: str) -> bytes:
        given = self.rounds.needed(3, 10 + place, stage)
        assert isinstance(given, bytes), f"{stage} is not there for {place}"
        client = self.clients[place]
        if stage == "shares":
            return client.shares(given)
        if stage == "masked":
            seed = PLAN.codec_seed(2)
            vector = PLAN.vector.encode(Update({"w": self.values[place]}, {}), weight=place + 1, shared_seed=seed)
            return client.masked(given, vector)
        return client.unmask(given)

    def send(self, stage: str, *places: int) -> None:
        messages = [self.message(place, stage) for place in places]
        for place, message in zip(places, messages, strict=True):
            self.rounds.take(3, 10 + place, stage, message)

    def mean(self, *places: int) -> torch.Tensor:
        weight = torch.tensor([place + 1.0 for place in places], dtype=torch.float64)
        values = torch.stack([self.values[place].double() for place in places])
        return (weight @ values) / weight.sum()


@contextmanager
def summing(rounds: SecureRounds, phones: Phones) -> Iterator[list[Summed]]:
    """The thread that makes versions waits for the group of round 3, which trained version 2."""
    found: list[Summed] = []
    thread = threading.Thread(target=lambda: found.append(rounds.sum(3, 2, phones.members)))
    thread.start()
    try:
        while isinstance(rounds.needed(3, 10, "shares"), StageWait):
            threading.Event().wait(0.01)
        yield found
    finally:
        thread.join(5.0)
        rounds.stop()
        thread.join(5.0)
        assert not thread.is_alive()


def refused(call: object, *arguments: object) -> str:
    with pytest.raises(RefusedError) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.code


def test_a_group_that_stays_gives_the_weighted_mean() -> None:
    rounds = SecureRounds(PLAN)
    phones = Phones(rounds, 4)
    with summing(rounds, phones) as found:
        for stage in ("shares", "masked", "unmask"):
            phones.send(stage, 0, 1, 2, 3)
    (summed,) = found
    assert (summed.num_updates, summed.reason) == (4, "")
    # Where the disk did not take the version it is made again, and the devices are gone.
    assert rounds.sum(3, 2, phones.members) is summed
    assert summed.mean is not None
    step = PLAN.vector.fixed_point.step
    torch.testing.assert_close(summed.mean.delta["w"], phones.mean(0, 1, 2, 3), atol=step, rtol=0.0)


def test_who_falls_silent_is_waited_for_and_left_out() -> None:
    clock = Clock()
    rounds = SecureRounds(PLAN, now_s=clock)
    phones = Phones(rounds, 4)
    with summing(rounds, phones) as found:
        phones.send("shares", 0, 1, 2, 3)
        phones.send("masked", 0, 1, 3)
        assert isinstance(rounds.needed(3, 10, "unmask"), StageWait)
        clock.now_s += DEADLINE_S
        # Too late for the stage, by the clock of the server.
        assert refused(phones.send, "masked", 2) == "stage_over"
        phones.send("unmask", 0, 1, 3)
    (summed,) = found
    assert summed.num_updates == 3
    assert summed.mean is not None
    step = PLAN.vector.fixed_point.step
    torch.testing.assert_close(summed.mean.delta["w"], phones.mean(0, 1, 3), atol=step, rtol=0.0)


def test_too_few_leave_no_sum_and_everybody_is_told() -> None:
    clock = Clock()
    rounds = SecureRounds(PLAN, now_s=clock)
    phones = Phones(rounds, 4)
    with summing(rounds, phones) as found:
        phones.send("shares", 0)
        clock.now_s += DEADLINE_S
        assert refused(rounds.needed, 3, 10, "masked") == "no_sum"
        assert refused(rounds.take, 3, 11, "shares", b"") == "no_sum"
    assert found[0].mean is None
    assert "sent shares" in found[0].reason


def test_what_is_sent_again_is_taken_once_and_anything_else_refused() -> None:
    rounds = SecureRounds(PLAN)
    phones = Phones(rounds, 4)
    with summing(rounds, phones) as found:
        assert refused(rounds.take, 3, 10, "masked", b"") == "too_early"
        assert refused(rounds.take, 3, 10, "keys", b"") == "unknown"
        assert refused(rounds.take, 3, 99, "shares", b"") == "not_in_group"
        assert refused(rounds.take, 2, 10, "shares", b"") == "no_group"
        assert refused(rounds.take, 3, 10, "shares", b"short") == "wrong_message"
        message = phones.message(0, "shares")
        assert rounds.message_bytes(3, 10, "shares") == len(message)
        for _ in range(2):
            rounds.take(3, 10, "shares", message)
        assert refused(rounds.take, 3, 10, "shares", message[:-1] + b"x") == "other_message"
        phones.send("shares", 1, 2, 3)
        phones.send("masked", 0, 1, 2, 3)
        phones.send("unmask", 0, 1, 2, 3)
    assert found[0].num_updates == 4


def test_a_round_that_has_not_closed_yet_is_waited_for() -> None:
    assert isinstance(SecureRounds(PLAN).needed(0, 1, "shares"), StageWait)


def test_the_same_keys_twice_make_no_group() -> None:
    rounds = SecureRounds(PLAN)
    keys = SecureClient(PLAN.settings).keys()
    summed = rounds.sum(3, 2, [Member(10, keys), Member(11, keys)])
    assert summed.mean is None
    assert "same keys" in summed.reason


def test_a_server_that_stops_waits_for_nobody() -> None:
    rounds = SecureRounds(PLAN)
    phones = Phones(rounds, 4)
    with summing(rounds, phones) as found:
        rounds.stop()
    assert found[0].mean is None


def test_messages_that_are_kept_give_the_sum_again(tmp_path) -> None:
    rounds = SecureRounds(PLAN, folder=tmp_path / "transcripts")
    phones = Phones(rounds, 4)
    with summing(rounds, phones) as found:
        for stage in ("shares", "masked", "unmask"):
            phones.send(stage, 0, 1, 2, 3)
    kept = Transcript.from_bytes((tmp_path / "transcripts" / "round-3.jsonl").read_bytes())
    total, members = recomputed_sum(kept)
    assert members.tolist() == [0, 1, 2, 3]
    mean = PLAN.vector.decode(total, shared_seed=PLAN.codec_seed(2))
    assert found[0].mean is not None
    np.testing.assert_array_equal(mean.update.delta["w"], found[0].mean.delta["w"])


def test_a_sum_outlives_a_disk_that_does_not_take_its_messages(tmp_path) -> None:
    folder = tmp_path / "transcripts"
    # In its place a file: no folder can be made there.
    folder.write_text("in the way")
    rounds = SecureRounds(PLAN, folder=folder)
    phones = Phones(rounds, 4)
    failed: list[OSError] = []

    def summed() -> None:
        try:
            rounds.sum(3, 2, phones.members)
        except OSError as exc:
            failed.append(exc)

    thread = threading.Thread(target=summed)
    thread.start()
    while isinstance(rounds.needed(3, 10, "shares"), StageWait):
        threading.Event().wait(0.01)
    for stage in ("shares", "masked", "unmask"):
        phones.send(stage, 0, 1, 2, 3)
    thread.join(5.0)
    assert len(failed) == 1
    folder.unlink()
    # The devices are gone by now.
    found = rounds.sum(3, 2, phones.members)
    assert found.num_updates == 4
    assert recomputed_sum(Transcript.from_bytes((folder / "round-3.jsonl").read_bytes()))[1].tolist() == [0, 1, 2, 3]
