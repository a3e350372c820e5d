"""The bytes that members and server exchange, and how many they are: of the degree and the vector alone.

All integers are little-endian; ``u32`` has four bytes. A *neighbour* of a member is one it exchanges shares and masks
with; they always come in ascending order of their places in the group. *Holders* of a member's secrets are its
neighbours and itself, in ascending order.

| kind | layout |
|---|---|
| keys | public mask key, 32 bytes (X25519, RFC 7748); public share key, 32 bytes |
| roster | u32 members, u32 own place, u32 threshold, u32 degree; then a neighbour each: u32 place, 64 bytes keys |
| shares | a neighbour each: nonce, 12 bytes; AES-256-GCM of seed share and key share, 33 bytes each; tag, 16 bytes |
| shares_for | a neighbour each: 1 where its shares came, else 0; the 94 bytes that it sent, else zeros |
| masked | a number each: its ``ring_bytes`` low bytes |
| survivors | u32 members in the sum; then a holder each: u32 place, what is wanted of it: 0, ``SEED``, ``KEY`` |
| unmask | a holder each: what it is, as wanted; the share, 33 bytes, zeros where nothing is wanted |

Nothing is left out where a member has dropped out: so a size says nothing, and can be told before a round.
"""

import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pocketfleet.errors import PocketfleetError
from pocketfleet.training.privacy.secure_aggregation.secret_share import SHARE_BYTES
from pocketfleet.training.privacy.secure_aggregation.settings import RingVector, SecureSettings

__all__ = [
    "KEY",
    "KEYS_BYTES",
    "NONCE_BYTES",
    "PUBLIC_KEY_BYTES",
    "SEALED_BYTES",
    "SEED",
    "STAGES",
    "UP",
    "MessageKind",
    "NoSumError",
    "Roster",
    "SecureAggregationError",
    "Stage",
    "StageBytes",
    "Survivors",
    "fixed_parts",
    "masked_bytes",
    "packed",
    "roster_bytes",
    "share_bytes",
    "shares_for_bytes",
    "stage_bytes",
    "survivors_bytes",
    "unmask_bytes",
    "unpacked",
]

Stage = Literal["shares", "masked", "unmask"]
MessageKind = Literal["keys", "roster", "shares", "shares_for", "masked", "survivors", "unmask"]
UP: tuple[MessageKind, ...] = ("keys", "shares", "masked", "unmask")
STAGES: tuple[Stage, ...] = ("shares", "masked", "unmask")

PUBLIC_KEY_BYTES = 32
KEYS_BYTES = 2 * PUBLIC_KEY_BYTES
# AES-GCM's nonce and tag: NIST SP 800-38D, 8.2.2 and 5.2.1.2.
NONCE_BYTES, TAG_BYTES = 12, 16
SEALED_BYTES = NONCE_BYTES + 2 * SHARE_BYTES + TAG_BYTES

SEED, KEY = 1, 2
"""Which share of a holder's is wanted: of the seed of its own mask, or of its private mask key. Never both."""

_ROSTER_HEAD, _ROSTER_ROW = struct.Struct("<4I"), struct.Struct(f"<I{KEYS_BYTES}s")
_SURVIVORS_HEAD, _SURVIVORS_ROW = struct.Struct("<I"), struct.Struct("<IB")


class SecureAggregationError(PocketfleetError):
    """A peer sent what the protocol does not allow at this point; nothing has changed."""


class NoSumError(PocketfleetError):
    """There is no sum: too few members stayed. ``stage`` says where, the message why."""

    def __init__(self, stage: Stage, reason: str) -> None:
        super().__init__(f"no secure sum, after the stage {stage!r}: {reason}")
        self.stage = stage
        self.reason = reason


@dataclass(frozen=True, slots=True)
class StageBytes:
    """Bytes of one member's messages in a stage: first down to it, then up from it."""

    down: int
    up: int


def stage_bytes(stage: Stage, *, settings: SecureSettings, degree: int) -> StageBytes:
    """What a member receives and sends in a stage, without headers of a transport."""
    if stage == "shares":
        return StageBytes(roster_bytes(degree), share_bytes(degree))
    if stage == "masked":
        return StageBytes(shares_for_bytes(degree), masked_bytes(settings))
    return StageBytes(survivors_bytes(degree), unmask_bytes(degree))


def roster_bytes(degree: int) -> int:
    """Size of a roster for a member of so many neighbours."""
    return _ROSTER_HEAD.size + degree * _ROSTER_ROW.size


def share_bytes(degree: int) -> int:
    """Size of the shares that such a member sends."""
    return degree * SEALED_BYTES


def shares_for_bytes(degree: int) -> int:
    """Size of the shares that such a member gets."""
    return degree * (1 + SEALED_BYTES)


def masked_bytes(settings: SecureSettings) -> int:
    """Size of a masked vector: that of the same vector in clear."""
    return settings.vector_length * settings.ring_bytes


def survivors_bytes(degree: int) -> int:
    """Size of the request to unmask."""
    return _SURVIVORS_HEAD.size + (degree + 1) * _SURVIVORS_ROW.size


def unmask_bytes(degree: int) -> int:
    """Size of the answer to it."""
    return (degree + 1) * (1 + SHARE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """Who is in the group, as far as one member needs to know.

    Attributes:
        members: of the group.
        place: the member's own, from 0.
        threshold: holders without whom a secret stays one.
        keys: 64 bytes each, by the neighbour's place, ascending.
    """

    members: int
    place: int
    threshold: int
    keys: dict[int, bytes]

    def to_bytes(self) -> bytes:
        """In the layout above."""
        head = _ROSTER_HEAD.pack(self.members, self.place, self.threshold, len(self.keys))
        return head + b"".join(itertools.starmap(_ROSTER_ROW.pack, self.keys.items()))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Roster":
        """The roster in the bytes.

        Raises:
            SecureAggregationError: they are none, or say what cannot be.
        """
        if len(data) < _ROSTER_HEAD.size:
            raise SecureAggregationError(f"a roster has at least {_ROSTER_HEAD.size} bytes, got {len(data)}")
        members, place, threshold, degree = _ROSTER_HEAD.unpack_from(data)
        if len(data) != roster_bytes(degree):
            raise SecureAggregationError(
                f"a roster of {degree} neighbours has {roster_bytes(degree)} bytes, got {len(data)}"
            )
        rows = list(_ROSTER_ROW.iter_unpack(data[_ROSTER_HEAD.size :]))
        places = [row[0] for row in rows]
        if place >= members or place in places or not _ascending(places) or (places and places[-1] >= members):
            raise SecureAggregationError(
                f"a roster's neighbours must be other members, each once and ascending: member {place} of {members} "
                f"got {places}"
            )
        if not (degree + 1) // 2 < threshold <= degree + 1:
            raise SecureAggregationError(
                f"the threshold must be over half of the {degree + 1} holders and at most all of them, got {threshold}"
            )
        if len({row[1] for row in rows}) < len(rows):
            raise SecureAggregationError("a roster names the same keys twice")
        return cls(members=members, place=place, threshold=threshold, keys=dict(rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivors:
    """Who is in the sum, and what of each holder is asked.

    Attributes:
        members: in the sum, of the whole group.
        wanted: by the holder's place, ascending: 0, ``SEED`` or ``KEY``.
    """

    members: int
    wanted: dict[int, int]

    def to_bytes(self) -> bytes:
        """In the layout above."""
        return _SURVIVORS_HEAD.pack(self.members) + b"".join(
            itertools.starmap(_SURVIVORS_ROW.pack, self.wanted.items())
        )

    @classmethod
    def from_bytes(cls, data: bytes, *, degree: int) -> "Survivors":
        """The request in the bytes.

        Raises:
            SecureAggregationError: they are none for a member of so many neighbours, or a holder comes twice.
        """
        if len(data) != survivors_bytes(degree):
            raise SecureAggregationError(
                f"a request to unmask has {survivors_bytes(degree)} bytes for {degree} neighbours, got {len(data)}"
            )
        rows = list(_SURVIVORS_ROW.iter_unpack(data[_SURVIVORS_HEAD.size :]))
        if not _ascending([row[0] for row in rows]):
            raise SecureAggregationError("a request to unmask must name each holder once, in ascending order")
        return cls(members=_SURVIVORS_HEAD.unpack_from(data)[0], wanted=dict(rows))


def fixed_parts(data: bytes, *, count: int, part_bytes: int, what: str) -> Iterator[bytes]:
    """The bytes cut into ``count`` parts of one size.

    Raises:
        SecureAggregationError: they are not so many; ``what`` names the message.
    """
    if len(data) != count * part_bytes:
        raise SecureAggregationError(f"{what} must have {count * part_bytes} bytes, got {len(data)}")
    return (data[start : start + part_bytes] for start in range(0, len(data), part_bytes))


def packed(vector: RingVector, settings: SecureSettings) -> bytes:
    """The low ``ring_bytes`` of each number."""
    words = np.ascontiguousarray(vector, dtype=settings.dtype)
    if words.itemsize == settings.ring_bytes:
        return words.tobytes()
    return words.view(np.uint8).reshape(-1, words.itemsize)[:, : settings.ring_bytes].tobytes()


def unpacked(data: bytes, settings: SecureSettings) -> RingVector:
    """The numbers in the bytes; read-only where the word is as long as ``ring_bytes``.

    Raises:
        SecureAggregationError: the bytes are not those of a vector.
    """
    if len(data) != masked_bytes(settings):
        raise SecureAggregationError(
            f"a vector of {settings.vector_length} numbers has {masked_bytes(settings)} bytes, got {len(data)}"
        )
    if settings.dtype.itemsize == settings.ring_bytes:
        return np.frombuffer(data, settings.dtype)
    wide = np.zeros((settings.vector_length, settings.dtype.itemsize), np.uint8)
    wide[:, : settings.ring_bytes] = np.frombuffer(data, np.uint8).reshape(-1, settings.ring_bytes)
    return wide.view(settings.dtype).reshape(-1)


def _ascending(places: Sequence[int]) -> bool:
    return all(first < second for first, second in itertools.pairwise(places))
