"""Algorithms by name: the packaged ones, and a user's own."""

from collections.abc import Callable, Mapping
from typing import Any

from pocketfleet.errors import InputError
from pocketfleet.training.algorithm import Algorithm
from pocketfleet.training.algorithms.ditto import Ditto
from pocketfleet.training.algorithms.fedavg import FedAvg
from pocketfleet.training.algorithms.feddyn import FedDyn
from pocketfleet.training.algorithms.fedper import FedPer
from pocketfleet.training.algorithms.fedprox import FedProx
from pocketfleet.training.algorithms.fedsgd import FedSgd
from pocketfleet.training.algorithms.scaffold import Scaffold
from pocketfleet.training.server_optimizer import ServerOptimizer
from pocketfleet.training.task import load_factory

__all__ = ["load_algorithm"]

_PARTS = (
    *("broadcast", "client_start", "client_update", "device_init", "init", "name"),
    *("server_update", "step_settings", "weighting"),
)
_WITH_SERVER_OPTIMIZER: Mapping[str, Callable[..., Algorithm]] = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "fedsgd": FedSgd,
    "scaffold": Scaffold,
    "ditto": Ditto,
    "fedper": FedPer,
}


def load_algorithm(name: str, options: Mapping[str, Any], *, server_optimizer: ServerOptimizer) -> Algorithm:
    """The algorithm of a name.

    Args:
        name: such as ``"fedavg"``, or ``"my_module:make_algorithm"``, a function called with ``server_optimizer=`` and
            the options.
        options: keyword arguments.
        server_optimizer: makes the next model of the mean; FedDyn does so itself.

    Raises:
        InputError: the name is unknown, or what it names makes no algorithm.
    """
    if name == "feddyn":
        return FedDyn(**options)
    if name in _WITH_SERVER_OPTIMIZER:
        return _WITH_SERVER_OPTIMIZER[name](server_optimizer=server_optimizer, **options)
    if ":" not in name:
        raise InputError(
            f"algorithm.name must be one of {sorted([*_WITH_SERVER_OPTIMIZER, 'feddyn'])} or a path such as "
            f'"my_module:make_algorithm", got {name!r}'
        )
    try:
        algorithm = load_factory(name, key="algorithm.name")(server_optimizer=server_optimizer, **options)
    except TypeError as exc:
        takes = ", ".join(["server_optimizer", *options])
        raise InputError(f"{name!r} must be a function called with {takes}: {exc}") from exc
    if not isinstance(algorithm, Algorithm):
        missing = [part for part in _PARTS if not hasattr(algorithm, part)]
        raise InputError(f"{name!r} returned {type(algorithm).__name__}, which is no algorithm: it lacks {missing}")
    return algorithm
