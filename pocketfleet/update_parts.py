"""From the sections that say what becomes of updates to the objects that they name."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pocketfleet.device_sim.secure_sum import KeptUpdates
from pocketfleet.device_sim.uplink import Uplink
from pocketfleet.experiment import Experiment
from pocketfleet.training.aggregation_by_rule import make_aggregator
from pocketfleet.training.codec import Codec, DownloadCodec, LosslessCodec, load_codec
from pocketfleet.training.privacy.secure_aggregation.messages import KEYS_BYTES
from pocketfleet.training.traffic import Traffic
from pocketfleet.training.update import Update

__all__ = [
    "aggregator_factory",
    "codec_of",
    "download_of",
    "report_bytes",
    "uplink_of",
]


def aggregator_factory(experiment: Experiment, folder: Path | None = None) -> Callable[[], Any]:
    """What makes an empty aggregator of the experiment's rule; see ``aggregation_by_rule.make_aggregator``.

    Under secure aggregation updates are kept for the sum, see ``device_sim.secure_sum``.
    """
    if experiment.secure_aggregation.enabled:
        return KeptUpdates
    return functools.partial(make_aggregator, **experiment.aggregation.model_dump(), folder=folder)


def report_bytes(experiment: Experiment, report: Update) -> int:
    """How long a report's body is: an update as the codec writes it, or a device's public keys."""
    if experiment.secure_aggregation.enabled:
        return KEYS_BYTES
    return codec_of(experiment).encoded_bytes(report)


def codec_of(experiment: Experiment) -> Codec:
    """What updates are written in; under secure aggregation nothing is, see ``privacy_parts.secure_plan``."""
    if experiment.secure_aggregation.enabled:
        return LosslessCodec()
    return load_codec(experiment.codec.name, experiment.codec.options())


def download_of(experiment: Experiment, traffic: Traffic) -> DownloadCodec:
    """What model versions are written in."""
    return DownloadCodec(frozenset(traffic.weights), bits=experiment.codec.download_bits)


def uplink_of(experiment: Experiment) -> Uplink:
    """What arrives of the experiment's updates."""
    return Uplink(codec=codec_of(experiment), seed=experiment.seed)
