"""From the sections that say what becomes of updates to the objects that they name."""

import functools
from collections.abc import Callable
from pathlib import Path

from pocketfleet.experiment import Experiment
from pocketfleet.training.aggregation import Aggregator
from pocketfleet.training.aggregation_by_rule import make_aggregator

__all__ = ["aggregator_factory"]


def aggregator_factory(experiment: Experiment, folder: Path | None = None) -> Callable[[], Aggregator]:
    """What makes an empty aggregator of the experiment's rule; see ``aggregation_by_rule.make_aggregator``."""
    return functools.partial(make_aggregator, **experiment.aggregation.model_dump(), folder=folder)
