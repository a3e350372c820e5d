"""The server of a secure sum: keeps keys, sealed shares and one running sum, never a member's vector. No IO, no draws.

Rules (Bonawitz et al. 2017, figure 4; the sparse graph of Bell et al. 2020, algorithm 2):

1. Stages come in order: ``shares``, ``masked``, ``unmask``; the driver closes each. What a member sends in another
   stage, twice, or of another size is refused, and nothing changes.
2. ``close_shares`` ends without a sum where fewer than the settings' minimum sent shares, or a member that did has
   fewer holders left than the threshold.
3. ``take_masked`` adds to the running sum at once. ``close_masked`` ends without a sum where fewer than the minimum
   are in it, a secret that it needs has too few holders left, or those in it fall into parts without a common
   neighbour, of which each would have a sum that can be read alone.
4. It asks for the shares that ``unmasking`` needs and for no other, so it cannot read a vector.
5. ``sum`` takes away the masks of the seeds and those between members in the sum and members that are not. Without
   threshold shares of each secret that is needed there is no sum.

After ``NoSumError`` or the sum, every message is refused.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NoReturn

import numpy as np
import numpy.typing as npt

from pocketfleet.training.privacy.secure_aggregation.masks import add_masks, check_keys
from pocketfleet.training.privacy.secure_aggregation.messages import (
    SEALED_BYTES,
    MessageKind,
    NoSumError,
    Roster,
    SecureAggregationError,
    Stage,
    Survivors,
    fixed_parts,
    share_bytes,
    unpacked,
)
from pocketfleet.training.privacy.secure_aggregation.neighbourhood import Neighbourhood
from pocketfleet.training.privacy.secure_aggregation.secret_share import SHARE_BYTES
from pocketfleet.training.privacy.secure_aggregation.settings import RingVector, SecureSettings
from pocketfleet.training.privacy.secure_aggregation.unmasking import Unmasking, needed_secrets

__all__ = ["SecureServer"]


class SecureServer:
    """One group, of one round.

    Args:
        settings: of the vector, as the members have them.
        neighbourhood: of the group.
        keys: what each member reported, by its place.
        record: called with each message that passes, once it was accepted: its kind, the member, the bytes.

    Raises:
        SecureAggregationError: keys are not of one member each: so many, no two the same, such as ``check_keys``
            takes. Whoever takes reports checks them there: here one member's would stop the group.
    """

    def __init__(
        self,
        settings: SecureSettings,
        neighbourhood: Neighbourhood,
        keys: Sequence[bytes],
        record: Callable[[MessageKind, int, bytes], None] | None = None,
    ) -> None:
        if len(keys) != neighbourhood.members:
            raise SecureAggregationError(f"keys of {neighbourhood.members} members are needed, got {len(keys)}")
        for key in keys:
            check_keys(key)
        if len(set(keys)) < len(keys):
            raise SecureAggregationError("two members sent the same keys")
        self.settings = settings
        self.neighbourhood = neighbourhood
        self.stage: Stage | Literal["ended"] = "shares"
        self._keys = list(keys)
        self._sent_shares = np.zeros(neighbourhood.members, bool)
        self._in_sum = np.zeros(neighbourhood.members, bool)
        self._answered = np.zeros(neighbourhood.members, bool)
        # Of a member that sent shares: a sealed pair by the neighbour that it is for.
        self._sealed: dict[int, dict[int, bytes]] = {}
        self._running = np.zeros(settings.vector_length, settings.dtype)
        # In the stage ``unmask``.
        self._unmasking: Unmasking | None = None
        self._record = record
        for place, key in enumerate(keys):
            self._passed("keys", place, key)

    @property
    def running_sum(self) -> RingVector:
        """All of the vectors that it holds: their sum, masked until ``sum`` is called. Read-only."""
        view = self._running.view()
        view.flags.writeable = False
        return view

    @property
    def restorable(self) -> bool:
        """In the stage ``unmask``: whether every secret needed has its shares, so that no answer need be waited for."""
        return self._unmasking is not None and not self._unmasking.lacking()

    def roster(self, member: int) -> bytes:
        """Stage ``shares``, down: the member's neighbours, their keys, the threshold.

        Raises:
            SecureAggregationError: no such member, or another stage.
        """
        self._expects("shares", member)
        neighbours = self.neighbourhood.neighbours[member].tolist()
        roster = Roster(
            members=self.neighbourhood.members,
            place=member,
            threshold=self.neighbourhood.threshold,
            keys={place: self._keys[place] for place in neighbours},
        )
        return self._passed("roster", member, roster.to_bytes())

    def take_shares(self, member: int, data: bytes) -> None:
        """Stage ``shares``, up: sealed shares, kept for the neighbours.

        Raises:
            SecureAggregationError: no such member, again, another stage, another size.
        """
        self._expects("shares", member, done=self._sent_shares)
        degree = self.neighbourhood.degree
        if len(data) != share_bytes(degree):
            raise SecureAggregationError(
                f"shares for {degree} neighbours have {share_bytes(degree)} bytes, got {len(data)}"
            )
        parts = fixed_parts(data, count=degree, part_bytes=SEALED_BYTES, what="shares")
        self._sealed[member] = dict(zip(self.neighbourhood.neighbours[member].tolist(), parts, strict=True))
        self._sent_shares[member] = True
        self._passed("shares", member, data)

    def close_shares(self) -> npt.NDArray[np.int64]:
        """End the stage ``shares``.

        Returns:
            Places of the members that go on, ascending.

        Raises:
            NoSumError: too few did (rule 2).
            SecureAggregationError: another stage.
        """
        self._expects("shares")
        self._need_minimum("shares", self._sent_shares, "sent shares")
        holders = self.neighbourhood.holders_among(self._sent_shares)
        self._need_holders("shares", holders, self._sent_shares)
        self.stage = "masked"
        return np.flatnonzero(self._sent_shares).astype(np.int64)

    def shares_for(self, member: int) -> bytes:
        """Stage ``masked``, down: what the neighbours sealed for the member.

        Raises:
            SecureAggregationError: no such member, it sent no shares, or another stage.
        """
        self._expects("masked", member)
        absent = bytes(1 + SEALED_BYTES)
        parts = [
            b"\1" + self._sealed[place][member] if self._sent_shares[place] else absent
            for place in self.neighbourhood.neighbours[member].tolist()
        ]
        return self._passed("shares_for", member, b"".join(parts))

    def take_masked(self, member: int, data: bytes) -> None:
        """Stage ``masked``, up: a masked vector, added to the running sum and forgotten.

        Raises:
            SecureAggregationError: no such member, it sent no shares, again, another stage, another size.
        """
        self._expects("masked", member, done=self._in_sum)
        self._running += unpacked(data, self.settings)
        self._in_sum[member] = True
        self._passed("masked", member, data)

    def close_masked(self) -> npt.NDArray[np.int64]:
        """End the stage ``masked``.

        Returns:
            Places of the members in the sum, ascending.

        Raises:
            NoSumError: too few, or not joined (rule 3).
            SecureAggregationError: another stage.
        """
        self._expects("masked")
        self._need_minimum("masked", self._in_sum, "sent a masked vector")
        needed = needed_secrets(self.neighbourhood, sent_shares=self._sent_shares, in_sum=self._in_sum)
        self._need_holders("masked", self.neighbourhood.holders_among(self._in_sum), needed)
        if not self.neighbourhood.connected(self._in_sum):
            self._end("masked", "those that sent a masked vector fall into parts without a neighbour in common")
        self._sealed.clear()
        self._unmasking = Unmasking(self.neighbourhood, sent_shares=self._sent_shares, in_sum=self._in_sum)
        self.stage = "unmask"
        return np.flatnonzero(self._in_sum).astype(np.int64)

    def survivors_for(self, member: int) -> bytes:
        """Stage ``unmask``, down: which share is wanted of each of the member's holders.

        Raises:
            SecureAggregationError: no such member, it is not in the sum, or another stage.
        """
        wanted = self._in_unmask(member).wanted(member)
        survivors = Survivors(members=int(self._in_sum.sum()), wanted=wanted)
        return self._passed("survivors", member, survivors.to_bytes())

    def take_unmask(self, member: int, data: bytes) -> None:
        """Stage ``unmask``, up: the shares that were wanted.

        Raises:
            SecureAggregationError: no such member, it is not in the sum, again, another stage, another size, or other
                kinds of shares than those wanted.
        """
        unmasking = self._in_unmask(member, done=self._answered)
        wanted = unmasking.wanted(member)
        parts = list(fixed_parts(data, count=len(wanted), part_bytes=1 + SHARE_BYTES, what="an answer to unmask"))
        for (place, kind), part in zip(wanted.items(), parts, strict=True):
            if part[0] != kind:
                raise SecureAggregationError(f"of member {place} a share of kind {kind} is wanted, got {part[0]}")
        unmasking.take(member, {place: part[1:] for place, part in zip(wanted, parts, strict=True) if part[0]})
        self._answered[member] = True
        self._passed("unmask", member, data)

    def sum(self) -> tuple[RingVector, npt.NDArray[np.int64]]:
        """The sum of the vectors, and whose they are; ends the group.

        Returns:
            Numbers of the ring, ``[vector_length]``, of the settings' ``dtype``; places of the members, ascending.

        Raises:
            NoSumError: of a secret that is needed fewer shares came than the threshold, or they restore another.
            SecureAggregationError: another stage.
        """
        unmasking = self._in_unmask()
        if lacking := unmasking.lacking():
            member, came = next(iter(lacking.items()))
            self._end(
                "unmask",
                f"{int(self._answered.sum())} members answered, and of the secrets of {len(lacking)} fewer shares came "
                f"than the threshold, {self.neighbourhood.threshold} (of member {member}: {came})",
            )
        try:
            plus, minus = unmasking.mask_keys(self._keys)
        except ValueError as exc:
            self._end("unmask", str(exc))
        add_masks(self._running, plus=plus, minus=minus)
        self._running &= self.settings.dtype.type(self.settings.ring - 1)
        self._unmasking = None
        self.stage = "ended"
        return self._running, np.flatnonzero(self._in_sum).astype(np.int64)

    def _passed(self, kind: MessageKind, member: int, data: bytes) -> bytes:
        if self._record is not None:
            self._record(kind, member, data)
        return data

    def _need_minimum(self, stage: Stage, done: npt.NDArray[np.bool_], what: str) -> None:
        if done.sum() < self.settings.minimum:
            self._end(
                stage, f"{int(done.sum())} of {self.neighbourhood.members} members {what}, {self.settings.minimum} must"
            )

    def _need_holders(self, stage: Stage, holders: npt.NDArray[np.int64], of: npt.NDArray[np.bool_]) -> None:
        short = np.flatnonzero(of & (holders < self.neighbourhood.threshold))
        if short.size:
            self._end(
                stage,
                f"of the secrets of {short.size} members fewer holders are left than the threshold, "
                f"{self.neighbourhood.threshold} (of member {short[0]}: {holders[short[0]]} of "
                f"{self.neighbourhood.degree + 1})",
            )

    def _end(self, stage: Stage, reason: str) -> NoReturn:
        self.stage = "ended"
        self._sealed.clear()
        self._unmasking = None
        raise NoSumError(stage, reason)

    def _in_unmask(self, member: int | None = None, done: npt.NDArray[np.bool_] | None = None) -> Unmasking:
        self._expects("unmask", member, done)
        assert self._unmasking is not None
        return self._unmasking

    def _expects(self, stage: Stage, member: int | None = None, done: npt.NDArray[np.bool_] | None = None) -> None:
        if self.stage != stage:
            raise SecureAggregationError(f"the group is in the stage {self.stage!r}, not in {stage!r}")
        if member is None:
            return
        if not 0 <= member < self.neighbourhood.members:
            raise SecureAggregationError(f"members are 0..{self.neighbourhood.members - 1}, got {member}")
        before = {"masked": self._sent_shares, "unmask": self._in_sum}.get(stage)
        if before is not None and not before[member]:
            raise SecureAggregationError(f"member {member} has dropped out before the stage {stage!r}")
        if done is not None and done[member]:
            raise SecureAggregationError(f"member {member} has done the stage {stage!r}")
