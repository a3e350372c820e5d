"""A round's secure sum in a simulation: the very clients and server of the protocol, a device at a time.

Rules:

1. Chunks of devices are trained as ever; what they learnt is kept (``KeptUpdates``) until their clients mask it.
2. Devices that the stages lost (``secure_stages``) fall silent at that stage. The server sees what a service sees.
3. With ``masks`` false vectors are added in clear, to the same bits: what masks and their removal cost is left out.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.chunk_result import row_of
from pocketfleet.device_sim.secure_stages import Group
from pocketfleet.training.draws import draw_key
from pocketfleet.training.privacy.random_bits import Bits, keyed_bits
from pocketfleet.training.privacy.secure_aggregation.client import SecureClient
from pocketfleet.training.privacy.secure_aggregation.messages import STAGES
from pocketfleet.training.privacy.secure_aggregation.secure_plan import SecurePlan
from pocketfleet.training.privacy.secure_aggregation.secure_vector import SecureMean
from pocketfleet.training.privacy.secure_aggregation.server import SecureServer
from pocketfleet.training.privacy.secure_aggregation.transcript import Transcript
from pocketfleet.training.update import Update
from pocketfleet.whole_file import write_whole

__all__ = ["KeptUpdates", "SecureSum"]

_MASKED = STAGES.index("masked")
Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


class KeptUpdates:
    """The updates of a chunk of devices as they are; an aggregator that adds nothing."""

    def __init__(self) -> None:
        self.pieces: list[tuple[Update, Floats]] = []
        self.num_updates = 0

    def add_many(self, updates: Update, *, weight: Floats, scale: Floats) -> None:
        """Keep them; ``scale`` is 1, since a secure sum is of one model version."""
        del scale
        self.pieces.append((updates, weight))
        self.num_updates += int((weight > 0.0).sum())

    def merge(self, other: "KeptUpdates") -> None:
        """Keep those of another one too."""
        self.pieces += other.pieces
        self.num_updates += other.num_updates

    def rows(self) -> Iterator[tuple[Update, float]]:
        """Each device's update and weight, in the order in which they came."""
        for updates, weight in self.pieces:
            for row in range(len(weight)):
                yield Update(*(row_of(tensors, row) for tensors in updates.groups().values())), float(weight[row])

    def result(self) -> Update:
        """There is none: what is kept is no mean."""
        raise TypeError("kept updates have no mean: a SecureSum makes it")


class SecureSum:
    """The sum of one group.

    Args:
        plan: how sums are made.
        group: how its devices fared.
        round_index: of the round.
        model_version: that they trained from.
        masks: see rule 3.
        transcript: the file into which what passed is written; ``None``: it is not.
    """

    def __init__(
        self,
        plan: SecurePlan,
        group: Group,
        *,
        round_index: int,
        model_version: int,
        masks: bool,
        transcript: Path | None = None,
    ) -> None:
        self._plan, self._group = plan, group
        self._shared_seed = plan.codec_seed(model_version)
        self._members = np.flatnonzero(group.in_sum)  # of the group, whose vectors will come
        self._total = np.zeros(plan.settings.vector_length, plan.settings.dtype)
        self._clients: dict[int, SecureClient] = {}
        self._server: SecureServer | None = None
        self._file, self._round = transcript, round_index
        if masks:
            neighbourhood = plan.neighbourhood(len(group.flights), round_index)
            # Those that were lost at the first stage too: the server does not know that they will be.
            self._clients = {place: SecureClient(plan.settings) for place in range(len(group.flights))}
            keys = [client.keys() for client in self._clients.values()]
            self._transcript = Transcript(plan.settings, neighbourhood)
            record = self._transcript.record if self._file is not None else None
            self._server = SecureServer(plan.settings, neighbourhood, keys, record=record)
            self._share(self._server)

    def _share(self, server: SecureServer) -> None:
        for place in np.flatnonzero(self._group.answered > 0).tolist():
            server.take_shares(place, self._clients[place].shares(server.roster(place)))
        server.close_shares()

    def take(self, part: KeptUpdates, places: Int64s) -> None:
        """The updates of a chunk of the devices in the sum: ``places`` of theirs, ``[k]``, among these."""
        for place, (update, weight) in zip(self._members[places].tolist(), part.rows(), strict=True):
            vector = self._plan.vector.encode(
                update, weight=int(weight), shared_seed=self._shared_seed, bits=self._bits(place)
            )
            if self._server is None:
                self._total += vector
            else:
                masked = self._clients[place].masked(self._server.shares_for(place), vector)
                self._server.take_masked(place, masked)

    def _bits(self, place: int) -> Bits:
        """For the noise of a device, drawn of the run's seed: a simulation is replayed."""
        device = int(self._group.flights["device"][place])
        own = int(draw_key(self._plan.seed, "secure noise", self._round, device)) >> 1
        return keyed_bits(own)("secure_noise", 0)

    def result(self) -> SecureMean:
        """The mean of the updates of all who are in the sum."""
        total = self._total
        if self._server is not None:
            self._server.close_masked()
            for place in np.flatnonzero(self._group.answered > _MASKED + 1).tolist():
                if not self._server.restorable:
                    answer = self._clients[place].unmask(self._server.survivors_for(place))
                    self._server.take_unmask(place, answer)
            total, _ = self._server.sum()
            if self._file is not None:
                head = {"round": self._round, "devices": self._group.flights["device"].tolist()}
                write_whole(self._file, json.dumps(head).encode() + b"\n" + self._transcript.to_bytes())
        return self._plan.vector.decode(total, shared_seed=self._shared_seed)
