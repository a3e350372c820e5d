"""The server of a secure sum: keeps keys, sealed shares and one running sum, never a member's vector. No IO, no draws.

Rules (Bonawitz et al. 2017, figure 4; the sparse graph of Bell et al. 2020, algorithm 2):

1. Stages come in order: ``shares``, ``masked``, ``unmask``; the driver closes each. What a member sends in another
   stage, twice, or of another size is refused, and nothing changes.
2. ``close_shares`` ends without a sum where fewer than the settings' minimum sent shares, or a member that did has
   fewer holders left than the threshold.
3. ``take_masked`` adds to the running sum at once. ``close_masked`` ends without a sum where fewer than the minimum
   are in it, a secret that it needs has too few holders left, or those in it fall into parts without a common
   neighbour, of which each would have a sum that can be read alone.
4. Of a member in the sum the seed is needed; of one that sent shares and no vector, its mask key, if a neighbour of it
   is in the sum. It asks for no other share, so it cannot read a vector, and takes no more than the threshold of each.
5. ``sum`` takes away the masks of the seeds and those between members in the sum and members that are not. Without
   threshold shares of each secret that is needed there is no sum.

After ``NoSumError`` or the sum, every message is refused.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NoReturn

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pocketfleet.training.privacy.secure_aggregation.masks import add_masks, agreed_key, self_mask_key
from pocketfleet.training.privacy.secure_aggregation.messages import (
    KEY,
    KEYS_BYTES,
    PUBLIC_KEY_BYTES,
    SEALED_BYTES,
    SEED,
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
from pocketfleet.training.privacy.secure_aggregation.secret_share import SHARE_BYTES, restored
from pocketfleet.training.privacy.secure_aggregation.settings import RingVector, SecureSettings

__all__ = ["SecureServer"]


class SecureServer:
    """One group, of one round.

    Args:
        settings: of the vector, as the members have them.
        neighbourhood: of the group.
        keys: what each member reported, by its place.
        record: called with each message that passes, once it was accepted: its kind, the member, the bytes.

    Raises:
        SecureAggregationError: keys are not of one member each: so many, 64 bytes, no two the same.
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
        for place, key in enumerate(keys):
            if len(key) != KEYS_BYTES:
                raise SecureAggregationError(f"keys must have {KEYS_BYTES} bytes, member {place} sent {len(key)}")
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
        # Of each member whose secret is needed: shares by the holder's number among its holders.
        self._restoring: dict[int, dict[int, bytes]] = {}
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
    def sent(self) -> npt.NDArray[np.int64]:
        """Places of the members that have done the present stage, ascending; after the end, the last one."""
        done = {"shares": self._sent_shares, "masked": self._in_sum}.get(self.stage, self._answered)
        return np.flatnonzero(done).astype(np.int64)

    @property
    def expected(self) -> npt.NDArray[np.int64]:
        """Places of the members from which a message of this stage may come: those that did the stage before."""
        before = {"shares": np.ones_like(self._in_sum), "masked": self._sent_shares, "unmask": self._in_sum}
        return np.flatnonzero(before.get(self.stage, np.zeros_like(self._in_sum))).astype(np.int64)

    @property
    def restorable(self) -> bool:
        """In the stage ``unmask``: whether every secret needed has its shares, so that no answer need be waited for."""
        return self.stage == "unmask" and not self._lacking()

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
        touched = self._in_sum[self.neighbourhood.neighbours].any(axis=1)
        needed = self._in_sum | (self._sent_shares & touched)
        self._need_holders("masked", self.neighbourhood.holders_among(self._in_sum), needed)
        if not self.neighbourhood.connected(self._in_sum):
            self._end("masked", "those that sent a masked vector fall into parts without a neighbour in common")
        self._sealed.clear()
        self._restoring = {place: {} for place in np.flatnonzero(needed).tolist()}
        self.stage = "unmask"
        return np.flatnonzero(self._in_sum).astype(np.int64)

    def survivors_for(self, member: int) -> bytes:
        """Stage ``unmask``, down: which share is wanted of each of the member's holders.

        Raises:
            SecureAggregationError: no such member, it is not in the sum, or another stage.
        """
        self._expects("unmask", member)
        survivors = Survivors(members=int(self._in_sum.sum()), wanted=self._wanted(member))
        return self._passed("survivors", member, survivors.to_bytes())

    def take_unmask(self, member: int, data: bytes) -> None:
        """Stage ``unmask``, up: the shares that were wanted.

        Raises:
            SecureAggregationError: no such member, it is not in the sum, again, another stage, another size, or other
                kinds of shares than those wanted.
        """
        self._expects("unmask", member, done=self._answered)
        wanted = self._wanted(member)
        parts = list(fixed_parts(data, count=len(wanted), part_bytes=1 + SHARE_BYTES, what="an answer to unmask"))
        for (place, kind), part in zip(wanted.items(), parts, strict=True):
            if part[0] != kind:
                raise SecureAggregationError(f"of member {place} a share of kind {kind} is wanted, got {part[0]}")
        for (place, kind), part in zip(wanted.items(), parts, strict=True):
            if kind and len(self._restoring[place]) < self.neighbourhood.threshold:
                self._restoring[place][self.neighbourhood.holders(place).index(member)] = part[1:]
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
        self._expects("unmask")
        if lacking := self._lacking():
            member = lacking[0]
            self._end(
                "unmask",
                f"{int(self._answered.sum())} members answered, and of the secrets of {len(lacking)} fewer shares came "
                f"than the threshold, {self.neighbourhood.threshold} (of member {member}: "
                f"{len(self._restoring[member])})",
            )
        plus: list[bytes] = []
        minus: list[bytes] = []
        for place, shares in self._restoring.items():
            secret = self._restored(place, shares)
            if self._in_sum[place]:
                minus.append(self_mask_key(secret))
            else:
                self._add_pair_keys(place, secret, plus, minus)
        add_masks(self._running, plus=plus, minus=minus)
        self._running &= self.settings.dtype.type(self.settings.ring - 1)
        self._restoring.clear()
        self.stage = "ended"
        return self._running, np.flatnonzero(self._in_sum).astype(np.int64)

    def _passed(self, kind: MessageKind, member: int, data: bytes) -> bytes:
        if self._record is not None:
            self._record(kind, member, data)
        return data

    def _restored(self, place: int, shares: dict[int, bytes]) -> bytes:
        try:
            return restored(shares)
        except ValueError as exc:
            self._end("unmask", f"the shares of the secret of member {place} do not fit together: {exc}")

    def _add_pair_keys(self, place: int, secret: bytes, plus: list[bytes], minus: list[bytes]) -> None:
        """What the members in the sum added of the masks with one that is not, the other way round."""
        private = X25519PrivateKey.from_private_bytes(secret)
        public = self._keys[place][:PUBLIC_KEY_BYTES]
        if private.public_key().public_bytes_raw() != public:
            self._end("unmask", f"the shares of the mask key of member {place} restore another key than it reported")
        for other in self.neighbourhood.neighbours[place].tolist():
            if self._in_sum[other]:
                key = agreed_key(private, public, self._keys[other][:PUBLIC_KEY_BYTES], purpose="pair mask")
                # A member adds the masks with those of a higher place, and takes away the others.
                (minus if place > other else plus).append(key)

    def _wanted(self, member: int) -> dict[int, int]:
        """By holder: what the server asks a member for."""
        wanted = {}
        for place in self.neighbourhood.holders(member):
            kind = SEED if self._in_sum[place] else KEY
            wanted[place] = kind if self._sent_shares[place] else 0
        return wanted

    def _lacking(self) -> list[int]:
        threshold = self.neighbourhood.threshold
        return [place for place, shares in self._restoring.items() if len(shares) < threshold]

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
        self._restoring.clear()
        raise NoSumError(stage, reason)

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
