"""Every message of a secure sum as it passed, what the server can read of it, and the sum again from them alone."""

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketfleet.training.privacy.secure_aggregation.messages import UP, MessageKind, SecureAggregationError
from pocketfleet.training.privacy.secure_aggregation.neighbourhood import Neighbourhood
from pocketfleet.training.privacy.secure_aggregation.server import SecureServer
from pocketfleet.training.privacy.secure_aggregation.settings import RingVector, SecureSettings

__all__ = ["Message", "Transcript", "recomputed_sum"]

READABLE: dict[MessageKind, str] = {
    "keys": "two public keys: they say who it is in this round, and nothing of its data",
    "roster": "whose neighbour the member is, with their public keys, and how many holders a secret needs: all its own",
    "shares": "sealed shares, which only the neighbour that each is for can open: their number and size",
    "shares_for": "the same sealed shares, sorted by whom they are for: their number and size",
    "masked": "numbers that are uniform in the ring, whatever the vector: their number, and that it was sent",
    "survivors": "who is in the sum, and who has dropped out since its shares: all its own",
    "unmask": "shares, one of each holder: enough of them restore the masks of those in the sum, which unmask the sum, "
    "and the keys of those that dropped out, of which it has no vector",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message between a member and the server.

    Attributes:
        kind: as in the table of ``messages``.
        member: its place.
        data: the bytes.
    """

    kind: MessageKind
    member: int
    data: bytes

    @property
    def up(self) -> bool:
        """Whether it went from the member to the server."""
        return self.kind in UP

    @property
    def readable(self) -> str:
        """What the server can read of it at this step, in words."""
        return READABLE[self.kind]


class Transcript:
    """A group's messages, in their order.

    Attributes:
        settings: of the vector.
        neighbourhood: of the group.
        messages: so far.
    """

    def __init__(
        self, settings: SecureSettings, neighbourhood: Neighbourhood, messages: Iterable[Message] = ()
    ) -> None:
        self.settings = settings
        self.neighbourhood = neighbourhood
        self.messages = list(messages)

    def record(self, kind: MessageKind, member: int, data: bytes) -> None:
        """Add a message: what ``SecureServer`` wants of its ``record``."""
        self.messages.append(Message(kind=kind, member=member, data=data))

    def to_bytes(self) -> bytes:
        """JSON, a line for the group and one a message; bytes in base64."""
        settings = self.settings
        group = {
            "vector_length": settings.vector_length,
            "ring_bytes": settings.ring_bytes,
            "minimum": settings.minimum,
            "threshold": self.neighbourhood.threshold,
            "neighbours": self.neighbourhood.neighbours.tolist(),
        }
        rows = [
            {
                "kind": one.kind,
                "member": one.member,
                "up": one.up,
                "readable": one.readable,
                "data": base64.b64encode(one.data).decode(),
            }
            for one in self.messages
        ]
        return "".join(json.dumps(row) + "\n" for row in [group, *rows]).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Transcript":
        """What ``to_bytes`` wrote.

        Raises:
            SecureAggregationError: the bytes are no transcript.
        """
        try:
            group, *rows = map(json.loads, data.decode().splitlines())
            settings = SecureSettings(
                vector_length=group["vector_length"], ring_bytes=group["ring_bytes"], minimum=group["minimum"]
            )
            neighbourhood = Neighbourhood(group["threshold"], np.array(group["neighbours"], np.int64))
            messages = [
                Message(
                    kind=row["kind"],
                    member=row["member"],
                    data=base64.b64decode(row["data"], validate=True),
                )
                for row in rows
            ]
        except (ValueError, KeyError, TypeError) as exc:
            raise SecureAggregationError(f"{len(data)} bytes that are no transcript of a secure sum: {exc}") from exc
        return cls(settings, neighbourhood, messages)


def recomputed_sum(transcript: Transcript) -> tuple[RingVector, npt.NDArray[np.int64]]:
    """The sum again, by a server that has what was recorded and nothing else.

    Returns:
        As ``SecureServer.sum``: the sum, and the places of the members in it.

    Raises:
        SecureAggregationError: the messages are not those of a group, or one is altered so that it cannot be one.
        NoSumError: nor was there a sum.
    """
    keys = [one.data for one in transcript.messages if one.kind == "keys"]
    server = SecureServer(transcript.settings, transcript.neighbourhood, keys)
    for one in transcript.messages:
        if one.kind == "shares":
            server.take_shares(one.member, one.data)
        elif one.kind == "masked":
            if server.stage == "shares":
                server.close_shares()
            server.take_masked(one.member, one.data)
        elif one.kind == "unmask":
            if server.stage == "masked":
                server.close_masked()
            server.take_unmask(one.member, one.data)
    return server.sum()
