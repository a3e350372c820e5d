"""From the sections that say what becomes of updates to the objects that they name."""

import functools
from collections.abc import Callable
from pathlib import Path

from pocketfleet.device_sim.uplink import Uplink
from pocketfleet.experiment import Experiment
from pocketfleet.training.aggregation import Aggregator
from pocketfleet.training.aggregation_by_rule import make_aggregator
from pocketfleet.training.codec import Codec, DownloadCodec, load_codec
from pocketfleet.training.traffic import Traffic

__all__ = ["aggregator_factory", "codec_of", "download_of", "uplink_of"]


def aggregator_factory(experiment: Experiment, folder: Path | None = None) -> Callable[[], Aggregator]:
    """What makes an empty aggregator of the experiment's rule; see ``aggregation_by_rule.make_aggregator``."""
    return functools.partial(make_aggregator, **experiment.aggregation.model_dump(), folder=folder)


def codec_of(experiment: Experiment) -> Codec:
    """What updates are written in."""
    return load_codec(experiment.codec.name, experiment.codec.options())


def download_of(experiment: Experiment, traffic: Traffic) -> DownloadCodec:
    """What model versions are written in."""
    return DownloadCodec(frozenset(traffic.weights), bits=experiment.codec.download_bits)


def uplink_of(experiment: Experiment) -> Uplink:
    """What arrives of the experiment's updates."""
    return Uplink(codec=codec_of(experiment), seed=experiment.seed)
