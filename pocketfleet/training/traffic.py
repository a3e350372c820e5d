"""What travels between server and device under an algorithm, found by asking it for one device that learnt nothing.

1. A device sends what ``client_update`` leaves in the update.
2. It downloads the buffers, what is broadcast, and the trainable weights that it does not start from values of its own.
3. Those others come once, with the programs.
4. A second model on the device doubles what a step costs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from pocketfleet.errors import InputError
from pocketfleet.training.algorithm import Algorithm, Trained
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["Traffic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Tensors by name; their names, shapes and types count, not their values.

    Attributes:
        report: what a device sends.
        weights: of a model version, what a device downloads for each attempt.
        broadcast: what it downloads beside them.
        first: weights that it downloads once.
        models: how many a device trains, 1 or 2.
    """

    report: Update
    weights: Tensors
    broadcast: Tensors = field(default_factory=dict)
    first: Tensors = field(default_factory=dict)
    models: int = 1

    @classmethod
    def of(cls, algorithm: Algorithm, weights: Weights, hyper: Mapping[str, float]) -> "Traffic":
        """Ask the algorithm.

        Args:
            algorithm: of the experiment.
            weights: of the untrained model.
            hyper: of the steps, without the algorithm's own.

        Raises:
            InputError: the algorithm fails, or what it reports or keeps does not fit the model or its own first state.
        """
        still = Update({name: torch.zeros_like(value) for name, value in weights.trainable.items()}, weights.buffers)
        try:
            broadcast = algorithm.broadcast(algorithm.init(weights))
            device_state = algorithm.device_init(weights)
            terms = algorithm.client_start(weights, broadcast, device_state)
            trained = Trained(
                update=still, steps=torch.tensor(1.0), hyper={**hyper, **terms.hyper}, personal=dict(terms.personal)
            )
            report, after = algorithm.client_update(trained, broadcast, device_state)
        except InputError:
            raise
        except Exception as exc:
            raise InputError(f"algorithm {algorithm.name!r} fails: {type(exc).__name__}: {exc}") from exc
        _check_within(algorithm, "delta", report.delta, weights.trainable)
        _check_within(algorithm, "buffers", report.buffers, weights.buffers)
        _check_state(algorithm, device_state, after)
        own = {name: value for name, value in weights.trainable.items() if name in terms.start}
        shared = {name: value for name, value in weights.trainable.items() if name not in own}
        return cls(
            report=report,
            weights=shared | weights.buffers,
            broadcast=dict(broadcast),
            first=own,
            models=2 if terms.personal else 1,
        )


def _check_within(algorithm: Algorithm, group: str, reported: Tensors, model: Tensors) -> None:
    for name, value in reported.items():
        if name not in model:
            raise InputError(
                f"algorithm {algorithm.name!r} reports {name!r} among its {group}, which this model does not have: "
                "what is no weight and no buffer belongs into extra"
            )
        if value.shape != model[name].shape:
            raise InputError(
                f"algorithm {algorithm.name!r} must report {name!r} among its {group} in the model's shape "
                f"{tuple(model[name].shape)}, got {tuple(value.shape)}"
            )


def _check_state(algorithm: Algorithm, before: Tensors, after: Tensors) -> None:
    def kinds(state: Tensors) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        return {name: (value.dtype, tuple(value.shape)) for name, value in sorted(state.items())}

    if kinds(before) != kinds(after):
        raise InputError(
            f"algorithm {algorithm.name!r} must keep the names, types and shapes that its device_init gave, "
            f"{kinds(before)}, got {kinds(after)} from client_update"
        )
