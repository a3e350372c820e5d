"""What a service serves: the round's plan, the model, its files, and how updates become the next version.

It is made by the front door of an experiment; nothing in it knows a phone.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocketfleet.training.aggregation import Aggregator
from pocketfleet.training.algorithm import Algorithm
from pocketfleet.training.codec import Codec, DownloadCodec
from pocketfleet.training.codec.codec_by_name import QUANTISED_DOWNLOAD
from pocketfleet.training.privacy.privacy_plan import PrivacyPlan
from pocketfleet.training.privacy.secure_aggregation.messages import KEYS_BYTES
from pocketfleet.training.privacy.secure_aggregation.secure_plan import SecurePlan
from pocketfleet.training.release_verdict import ReleasePlan
from pocketfleet.training.round import BufferedPlan, Int64s, RoundPlan
from pocketfleet.training.selection import Selection
from pocketfleet.training.server.protocol import MASKED, PartialWork, Rule
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Weights

__all__ = ["Chunks", "Limits", "ServicePlan"]

# Rows of accepted reports, by (device, steps, examples_held, model_version) [k] each, in chunks: the order of sums.
Chunks = Callable[[Int64s, Int64s, Int64s, Int64s], Iterable[Int64s]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the service bears; rates are those of token buckets, which hold ``_burst`` tokens.

    Attributes:
        max_devices: that can ever enrol.
        longest_retry_s: after which a device that was turned away for now is told to come again, at the latest: a round
            that fills closes before its deadline.
        device_requests_per_s, device_burst: of one device.
        address_failures_per_s, address_burst: of requests without a valid credential, from one address.
        control_bytes: of a JSON body.
        body_least_bytes_per_s: slower uploads are cut off, after ``body_grace_s``.
        header_timeout_s: from a connection's beginning to its first whole request.
        max_update_norm: of a delta; 0: any.
        max_num_examples: that a report may count for; 0: any.
        keep_updates: after they are in a model.
        keep_models: versions whose weights are kept beside those in use; 0: all.
    """

    max_devices: int = 100_000
    longest_retry_s: float = 60.0
    device_requests_per_s: float = 20.0
    device_burst: int = 100
    address_failures_per_s: float = 1.0
    address_burst: int = 30
    control_bytes: int = 64 * 1024
    body_least_bytes_per_s: float = 1_000.0
    body_grace_s: float = 20.0
    header_timeout_s: float = 20.0
    max_update_norm: float = 0.0
    max_num_examples: int = 0
    keep_updates: bool = False
    keep_models: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePlan:
    """One population's service.

    Attributes:
        population: its name, of letters, digits, ``-`` and ``_``.
        fingerprint: of everything that a restart must find unchanged.
        seed: of the batches' draws; it never leaves the service.
        count: model versions to make; devices are then told that training is over.
        rounds: the coordinator's plan.
        weights: of the untrained model.
        algorithm: that makes the next one, by ``algorithm_name`` and ``algorithm_options`` on the devices.
        make_aggregator: an empty aggregator for a round's updates, or for a chunk's.
        chunks: see ``Chunks``.
        staleness_exponent: see ``training.staleness``.
        codec: of the reports.
        secure: how sums hide their parts; ``None``: reports are updates.
        report: any update, for names, shapes and types.
        download: what a device gets of the weights and buffers with each version, and how that is written.
        programs: the bundle's files by program and name, in a folder or folders of their own.
        preferred_program: that devices run which can.
        hyper: of the steps, by name.
        epochs, steps, batch_size: a device's work; see ``protocol.Assignment``.
        partial_work: see ``protocol.PartialWork``.
        rule: when devices may train.
        make_selection: who is chosen at the end of a round's window, as if nobody had been yet; ``None``: there are no
            windows.
        release: what the gate of versions keeps to; ``None``: devices use the newest.
        release_metric: that it goes by, by the name that the program's ``evaluate`` gives it.
        privacy: what protects the models; ``None``: nothing does.
        limits: see ``Limits``.
    """

    population: str
    fingerprint: str
    seed: int
    count: int
    rounds: RoundPlan | BufferedPlan
    weights: Weights
    algorithm: Algorithm
    algorithm_name: str
    algorithm_options: Mapping[str, Any]
    make_aggregator: Callable[[], Aggregator]
    chunks: Chunks
    staleness_exponent: float
    codec: Codec
    report: Update
    download: DownloadCodec
    programs: Mapping[str, Mapping[str, Path]]
    preferred_program: str
    hyper: Mapping[str, float]
    epochs: int
    steps: int
    batch_size: int
    partial_work: PartialWork
    rule: Rule
    secure: SecurePlan | None = None
    make_selection: Callable[[], Selection] | None = None
    release: ReleasePlan | None = None
    release_metric: str = "loss"
    privacy: PrivacyPlan | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def device_parts(self) -> tuple[str, ...]:
        """What a device must be able to do, by the words in which it says so at its check-in."""
        download = (QUANTISED_DOWNLOAD,) if self.download.bits else ()
        return (*self.codec.parts, *download, *((MASKED,) if self.secure is not None else ()))

    @property
    def report_bytes(self) -> int:
        """Exactly so long is a report's body."""
        return self.codec.encoded_bytes(self.report) if self.secure is None else KEYS_BYTES
