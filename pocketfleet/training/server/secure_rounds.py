"""The group of the round that closed last, on its way to a sum that hides its parts.

Rules:

1. A group is a round's accepted reports, the public keys of their devices, in rising order of device. It goes through
   the stages ``shares``, ``masked`` and ``unmask``; each is over when all who are left have answered, or at its
   deadline. The last one is over as soon as the shares are there that it takes: those in the sum that have not answered
   need not.
2. It lives in this process's memory alone. A server that is started anew, or takes over, makes no sum of a group that
   was there before: its round teaches nothing.
3. Of vectors only their sum is kept. The same message again is taken as the first time; another one is refused.
4. Any thread may bring messages and ask; the one that makes versions waits for the sum.
5. Where updates are kept, so are a group's messages: ``transcripts/round-N.jsonl``, from which alone the sum can be
   made again.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pocketfleet.training.privacy.secure_aggregation.messages import (
    STAGES,
    NoSumError,
    SecureAggregationError,
    Stage,
    stage_bytes,
)
from pocketfleet.training.privacy.secure_aggregation.secure_plan import SecurePlan
from pocketfleet.training.privacy.secure_aggregation.server import SecureServer
from pocketfleet.training.privacy.secure_aggregation.transcript import Transcript
from pocketfleet.training.server.protocol import StageWait
from pocketfleet.training.server.refusal import RefusedError
from pocketfleet.training.update import Update
from pocketfleet.whole_file import write_whole

__all__ = ["Member", "SecureRounds", "Summed"]

# How soon a device asks again for what is not there yet; our choice: a round trip or two of a phone.
_ASK_AGAIN_S = 0.25


@dataclass(frozen=True, slots=True)
class Member:
    """A device of a group: the assignment that it reported on, and its public keys."""

    assignment: int
    keys: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Summed:
    """What became of a group: the mean of so many devices' updates, or ``None`` and why there is none."""

    mean: Update | None
    num_updates: int
    reason: str = ""


@dataclass(slots=True, kw_only=True)
class _Group:
    """A group under way; ``stage`` counts the stages that are over."""

    round: int
    place: dict[int, int]  # of each assignment
    degree: int
    server: SecureServer
    transcript: Transcript | None
    ends_s: float
    stage: int = 0
    left: set[int]  # places that may answer in this stage
    in_sum: set[int] = field(default_factory=set)  # places whose vectors are
    answered: dict[int, str] = field(default_factory=dict)  # hashes of this stage's messages by place
    no_sum: str = ""

    @property
    def over(self) -> bool:
        return bool(self.no_sum) or self.stage == len(STAGES)


class SecureRounds:
    """See the module's rules.

    Args:
        plan: how sums are made.
        folder: where messages are kept; ``None``: they are not.
        now_s: seconds that never go back.
    """

    def __init__(
        self, plan: SecurePlan, *, folder: Path | None = None, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._now_s = now_s
        self._changed = threading.Condition()
        self._group: _Group | None = None
        self._summed: tuple[int, Summed] | None = None
        self._stopped = False

    def sum(self, round_index: int, model_version: int, members: Sequence[Member]) -> Summed:
        """Let a group go through its stages, and wait for what becomes of it.

        Args:
            round_index: of the round that closed.
            model_version: that its devices trained from.
            members: of the group, in rising order of device.

        Returns:
            The same again for the round that was summed last: its devices are gone, and the version may be made once
            more where the disk did not take it.

        Raises:
            OSError: the disk does not take the messages; ask again.
        """
        if self._summed is None or self._summed[0] != round_index:
            # Kept before anything can fail.
            self._summed = (round_index, self._sum(round_index, model_version, members))
        self._keep_messages()
        return self._summed[1]

    def _keep_messages(self) -> None:
        """Rule 5."""
        group = self._group
        if self._folder is not None and group is not None and group.transcript is not None and not group.no_sum:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._folder / f"round-{group.round}.jsonl", group.transcript.to_bytes())

    def _sum(self, round_index: int, model_version: int, members: Sequence[Member]) -> Summed:
        with self._changed:
            try:
                self._group = group = self._begun(round_index, members)
            except SecureAggregationError as exc:
                return Summed(mean=None, num_updates=0, reason=str(exc))
            while not group.over and not self._stopped:
                self._changed.wait(timeout=max(group.ends_s - self._now_s(), 0.0))
                self._advance(group)
            if self._stopped:
                group.no_sum = group.no_sum or "the server was stopped"
            if group.no_sum:
                return Summed(mean=None, num_updates=0, reason=group.no_sum)
            try:
                total, members_in_sum = group.server.sum()
            except NoSumError as exc:
                group.no_sum = exc.reason
                return Summed(mean=None, num_updates=0, reason=exc.reason)
        mean = self._plan.vector.decode(total, shared_seed=self._plan.codec_seed(model_version))
        return Summed(mean=mean.update, num_updates=len(members_in_sum))

    def stop(self) -> None:
        """Nobody waits any longer."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _begun(self, round_index: int, members: Sequence[Member]) -> _Group:
        """The group in its first stage.

        Raises:
            SecureAggregationError: two devices reported the same keys.
        """
        neighbourhood = self._plan.neighbourhood(len(members), round_index)
        transcript = Transcript(self._plan.settings, neighbourhood) if self._folder is not None else None
        server = SecureServer(
            self._plan.settings,
            neighbourhood,
            [member.keys for member in members],
            record=transcript.record if transcript is not None else None,
        )
        return _Group(
            round=round_index,
            place={member.assignment: place for place, member in enumerate(members)},
            degree=neighbourhood.degree,
            server=server,
            transcript=transcript,
            ends_s=self._now_s() + self._plan.stage_deadline_s,
            left=set(range(len(members))),
        )

    def _advance(self, group: _Group) -> None:
        """Close the stage if it is over, and begin the next."""
        everything = len(group.answered) == len(group.left) or group.server.restorable
        if group.over or not (everything or self._now_s() >= group.ends_s):
            return
        try:
            if group.stage == 0:
                group.server.close_shares()
            elif group.stage == 1:
                group.in_sum = set(group.server.close_masked().tolist())
        except NoSumError as exc:
            group.no_sum = exc.reason
            return
        group.left, group.answered = set(group.answered), {}
        group.stage += 1
        group.ends_s = self._now_s() + self._plan.stage_deadline_s

    def message_bytes(self, round_index: int, assignment: int, stage: str) -> int:
        """How long a device's message of a stage is.

        Raises:
            RefusedError: it is not asked for one.
        """
        with self._changed:
            group = self._member(round_index, assignment)
            return stage_bytes(_checked_stage(stage), settings=self._plan.settings, degree=group.degree).up

    def take(self, round_index: int, assignment: int, stage: str, message: bytes) -> None:
        """A device's message.

        Raises:
            RefusedError: it does not count, and why.
        """
        with self._changed:
            group = self._member(round_index, assignment)
            number, place = STAGES.index(_checked_stage(stage)), group.place[assignment]
            self._advance(group)
            sha256 = hashlib.sha256(message).hexdigest()
            if group.no_sum:
                raise _no_sum(group)
            if number > group.stage:
                raise RefusedError(409, "too_early", f"the stage {stage!r} has not begun: ask for what it needs first")
            if group.stage == len(STAGES) and number == group.stage - 1 and place in group.in_sum:
                return
            if number < group.stage or place not in group.left:
                raise RefusedError(409, "stage_over", f"the stage {stage!r} is over for this device")
            if place in group.answered:
                if group.answered[place] != sha256:
                    raise RefusedError(409, "other_message", "another message of this stage counts: this one does not")
                return
            take = (group.server.take_shares, group.server.take_masked, group.server.take_unmask)[number]
            try:
                take(place, message)
            except SecureAggregationError as exc:
                raise RefusedError(422, "wrong_message", str(exc)) from exc
            group.answered[place] = sha256
            self._advance(group)
            self._changed.notify_all()

    def needed(self, round_index: int, assignment: int, stage: str) -> bytes | StageWait:
        """What a device needs for its message of a stage, or when to ask again; empty: no message is needed any more.

        Raises:
            RefusedError: it is not asked for one.
        """
        with self._changed:
            if self._group is None or self._group.round < round_index:
                return StageWait(retry_after_s=_ASK_AGAIN_S)
            group = self._member(round_index, assignment)
            number, place = STAGES.index(_checked_stage(stage)), group.place[assignment]
            self._advance(group)
            if group.no_sum:
                raise _no_sum(group)
            if number > group.stage:
                return StageWait(retry_after_s=_ASK_AGAIN_S)
            if group.stage == len(STAGES) and number == group.stage - 1 and place in group.in_sum:
                return b""
            if number < group.stage or place not in group.left:
                raise RefusedError(409, "stage_over", f"the stage {stage!r} is over for this device")
            give = (group.server.roster, group.server.shares_for, group.server.survivors_for)[number]
            return give(place)

    def _member(self, round_index: int, assignment: int) -> _Group:
        group = self._group
        if group is None or group.round != round_index:
            raise RefusedError(409, "no_group", "the round of this assignment has no sum under way")
        if assignment not in group.place:
            raise RefusedError(409, "not_in_group", "no report on this assignment is in the sum that is under way")
        return group


def _checked_stage(stage: str) -> Stage:
    for known in STAGES:
        if stage == known:
            return known
    raise RefusedError(404, "unknown", f"there is no stage {stage[:40]!r}: the stages are {', '.join(STAGES)}")


def _no_sum(group: _Group) -> RefusedError:
    return RefusedError(409, "no_sum", f"there is no sum of this round: {group.no_sum}")
