"""pocketfleet trains models on a fleet of phones you do not have.

Read in this order: ``training.task`` (what is learnt), ``training.train_step`` (one step on a device),
``export.bundle`` (what goes to a phone), ``device_sim.simulator`` (the walk of a round), ``assembly`` and
``simulation`` (how an experiment puts these together).

>>> from pocketfleet import Experiment, simulate
>>> run = simulate(Experiment.load("boston-two-phones"), out="runs/boston")  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pocketfleet.device_sim.run import Run
    from pocketfleet.errors import PocketfleetError
    from pocketfleet.experiment import Experiment
    from pocketfleet.export.bundle import Bundle
    from pocketfleet.export.exporter import export_bundle, export_task
    from pocketfleet.simulation import resume, simulate

__all__ = ["Bundle", "Experiment", "PocketfleetError", "Run", "export_bundle", "export_task", "resume", "simulate"]

__version__ = "0.1.0"

# Where each public name lives; imported when first used, so that ``pocketfleet --help`` does not load torch.
_HOMES = {
    "Bundle": "pocketfleet.export.bundle",
    "Experiment": "pocketfleet.experiment",
    "PocketfleetError": "pocketfleet.errors",
    "Run": "pocketfleet.device_sim.run",
    "export_bundle": "pocketfleet.export.exporter",
    "export_task": "pocketfleet.export.exporter",
    "resume": "pocketfleet.simulation",
    "simulate": "pocketfleet.simulation",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name not in _HOMES:
        raise AttributeError(f"module 'pocketfleet' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
