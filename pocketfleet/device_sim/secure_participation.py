"""An emulated device's part in a secure sum, after its report: stage by stage, over HTTP.

Rules:

1. Its secrets are in this process's memory alone: after a crash it cannot go on, and has dropped out.
2. It asks for what it needs for its next message until that is there, and sends the message until it is taken. Where
   nothing is needed any more the sum is made, with its vector in it.
3. It gives up where the service says that it is too late or that there is no sum, where what comes is not what the
   protocol allows, and where nothing comes for so long that every stage must be over.
"""

from pocketfleet.device_sim.device_parts import DeviceParts, Dropped
from pocketfleet.device_sim.service_client import Refused, Unreachable
from pocketfleet.training.privacy.secure_aggregation.client import SecureClient
from pocketfleet.training.privacy.secure_aggregation.messages import STAGES, SecureAggregationError
from pocketfleet.training.privacy.secure_aggregation.settings import RingVector, SecureSettings
from pocketfleet.training.server.protocol import SecureTerms

__all__ = ["SecureParticipation"]


class SecureParticipation:
    """One device's, of one round.

    Args:
        settings: of the vector.
        terms: how long the service waits.
        vector: what it adds to the sum.
    """

    def __init__(self, settings: SecureSettings, terms: SecureTerms, vector: RingVector) -> None:
        self._client = SecureClient(settings)
        self._terms = terms
        self._vector = vector

    @property
    def keys(self) -> bytes:
        """What the device reports."""
        return self._client.keys()

    def run(self, parts: DeviceParts, assignment_id: int, *, round_ends_s: float) -> None:
        """Answer every stage.

        Args:
            parts: of the device.
            assignment_id: that it reported on.
            round_ends_s: the phone's time at which the round closes at the latest.

        Raises:
            Dropped: it is not in the sum to its end, or there is none; the message is the reason's word.
        """
        service, clock = parts.service, parts.clock
        until_s = max(round_ends_s, clock.now_s())
        for stage in STAGES:
            # Each stage begins within the deadline of the one before, the first with the round's end.
            until_s += self._terms.stage_deadline_s * clock.speed
            parts.link.use(parts.phone.request(clock.now_s()))
            try:
                given = service.stage_input(assignment_id, stage, until_s=until_s)
                if not given:
                    return
                service.stage(assignment_id, stage, self._message(stage, given), until_s=until_s)
            except Unreachable as exc:
                raise Dropped("deadline") from exc
            except Refused as exc:
                raise Dropped(exc.code) from exc
            except SecureAggregationError as exc:
                parts.tell(f"does not answer the stage {stage!r}: {exc}")
                raise Dropped("protocol") from exc

    def _message(self, stage: str, given: bytes) -> bytes:
        if stage == "shares":
            return self._client.shares(given)
        if stage == "masked":
            return self._client.masked(given, self._vector)
        return self._client.unmask(given)
