"""The bundle of an experiment: a given one's programs, or a new export."""

from pathlib import Path

from pocketfleet.assembly import Parts, adaptation, batch_size, bundle_hyper
from pocketfleet.experiment import Experiment
from pocketfleet.export.exporter import export_task
from pocketfleet.export.model_version import with_weights
from pocketfleet.training.task import load_task

__all__ = ["make_bundle"]


def make_bundle(experiment: Experiment, parts: Parts, out: Path) -> None:
    """Write it to ``out``, with the weights that training starts from."""
    if parts.given_bundle is not None:
        with_weights(parts.given_bundle, parts.weights, out=out)
        return
    export_task(
        load_task(experiment.task.name, experiment.task.options),
        out=out,
        settings=parts.settings,
        hyper=bundle_hyper(experiment, parts),
        max_batch=batch_size(experiment, parts.data),
        weights=parts.weights,
        task_path=experiment.task.name,
        task_options=experiment.task.options,
        adaptation=adaptation(experiment),
    )
