"""A group of real members and a real server in one process, with members that leave before a stage's message."""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from pocketfleet.training.draws import draw_key, numbers
from pocketfleet.training.privacy.secure_aggregation.client import SecureClient
from pocketfleet.training.privacy.secure_aggregation.neighbourhood import Neighbourhood
from pocketfleet.training.privacy.secure_aggregation.server import SecureServer
from pocketfleet.training.privacy.secure_aggregation.settings import RingVector, SecureSettings
from pocketfleet.training.privacy.secure_aggregation.transcript import Transcript


def ring_vectors(members: int, settings: SecureSettings, seed: int = 0) -> RingVector:
    """A vector a member, uniform in the ring, ``[members, vector_length]``."""
    drawn = numbers(draw_key(seed, "ring vectors", np.arange(members)), settings.vector_length)
    return (drawn & np.uint64(settings.ring - 1)).astype(settings.dtype)


def plain_sum(vectors: RingVector, places: npt.NDArray[np.int64], settings: SecureSettings) -> list[int]:
    """With Python's integers."""
    return [sum(column) % settings.ring for column in zip(*vectors[places].tolist(), strict=True)]


class SecureGroup:
    """``leaving[i]``: which of the stages 1, 2, 3 member ``i`` leaves before; 0: none."""

    def __init__(
        self, neighbourhood: Neighbourhood, settings: SecureSettings, leaving: Collection[int] = (), *, seed: int = 0
    ) -> None:
        self.settings = settings
        self.members = neighbourhood.members
        self.leaving = np.array(list(leaving) or [0] * self.members)
        self.clients = [SecureClient(settings) for _ in range(self.members)]
        self.vectors = ring_vectors(self.members, settings, seed)
        self.transcript = Transcript(settings, neighbourhood)
        self.server = SecureServer(
            settings, neighbourhood, [one.keys() for one in self.clients], record=self.transcript.record
        )

    def staying(self, stage: int) -> list[int]:
        """Who has not left up to a stage."""
        return np.flatnonzero((self.leaving == 0) | (self.leaving > stage)).tolist()

    def share(self) -> None:
        for place in self.staying(1):
            self.server.take_shares(place, self.clients[place].shares(self.server.roster(place)))
        self.server.close_shares()

    def mask(self) -> None:
        for place in self.staying(2):
            answer = self.clients[place].masked(self.server.shares_for(place), self.vectors[place])
            self.server.take_masked(place, answer)
        self.server.close_masked()

    def unmask(self) -> None:
        for place in self.staying(3):
            self.server.take_unmask(place, self.clients[place].unmask(self.server.survivors_for(place)))

    def sum(self) -> tuple[RingVector, npt.NDArray[np.int64]]:
        """All stages."""
        self.share()
        self.mask()
        self.unmask()
        return self.server.sum()


def complete(members: int, threshold: int | None = None) -> Neighbourhood:
    threshold = members // 2 + 1 if threshold is None else threshold
    return Neighbourhood.drawn(members, degree=members - 1, threshold=threshold, seed=1)
