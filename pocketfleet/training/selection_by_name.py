"""A selection by its name: ``uniform``, ``oort``, or a user's own ``module:factory``."""

import inspect
from collections.abc import Mapping
from typing import Any

from pocketfleet.errors import InputError
from pocketfleet.training.oort import Oort
from pocketfleet.training.selection import Selection, Uniform
from pocketfleet.training.task import load_factory

__all__ = ["load_selection"]

_PACKAGED = {"uniform": Uniform, "oort": Oort}


def load_selection(
    name: str, options: Mapping[str, Any], *, seed: int, population: int, window_s: float, trains: bool
) -> Selection:
    """The selection that an experiment names.

    Args:
        name: of a packaged one, or ``module:factory``, which is called with ``seed=``, ``population=`` and the options.
        options: keyword arguments of its own.
        seed: of the experiment.
        population: how many devices there are.
        window_s: for how long a round's devices wait to be chosen from.
        trains: whether devices train, so that there are losses.

    Raises:
        InputError: no such selection, options that it does not take, or it cannot be of use here.
    """
    if name != "uniform" and window_s == 0.0:
        raise InputError(
            f'rounds.selection "{name}" needs phones to choose from, and without a window there are none: set '
            "rounds.selection_window_s above 0, such as 60"
        )
    if name not in _PACKAGED and ":" not in name:
        raise InputError(f'rounds.selection must be "uniform", "oort" or "my_module:make_selection", got {name!r}')
    factory = _PACKAGED.get(name) or load_factory(name, key="rounds.selection")
    taken = {"seed": seed, "population": population, **options}
    try:
        inspect.signature(factory).bind(**taken)
    except TypeError as exc:
        raise InputError(f"rounds.selection_options do not fit rounds.selection {name!r}: {exc}") from exc
    selection = factory(**taken)
    if not isinstance(selection, Selection):
        raise InputError(
            f"{name!r} returned {type(selection).__name__}, which lacks parts of training.selection.Selection"
        )
    if selection.needs_losses and not trains:
        raise InputError(
            f'rounds.selection "{name}" chooses by the losses that phones report, and engine.timing_only trains '
            'nothing: choose "uniform", or train'
        )
    return selection
