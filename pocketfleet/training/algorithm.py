"""A federated algorithm: what a device adds to its steps, what it reports, what the server makes of the mean.

An algorithm is any object with the attributes of ``Algorithm``; each call is pure. What it adds to a step must be
expressed by ``StepSettings`` and ``ClientTerms``, so that exported programs can run it on a phone. The calls of a
device (``client_start``, ``client_update``) are made for one device at a time or, by ``torch.vmap``, for many: made of
tensor operations alone they run fast, anything else makes them run one by one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch

from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["Algorithm", "ClientTerms", "Trained", "Weighting"]

# A device's share in the server's mean: by the examples it processed, or the same for each.
Weighting = Literal["examples", "devices"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTerms:
    """What one device's steps add or change.

    Attributes:
        hyper: hyper-parameters beside the experiment's, the same on every device of a round.
        correction: added to every gradient, by trainable name; ``None``: nothing.
        start: trainable weights by name to start from in place of the downloaded ones.
        personal: trainable weights by name of a second model, trained step by step on the same batches beside the one
            that is reported, with the downloaded weights as its anchor; empty: there is none. It becomes the
            device's own model.
        personal_hyper: hyper-parameters of its steps that differ, likewise the same on every device.
    """

    hyper: Mapping[str, float] = field(default_factory=dict)
    correction: Tensors | None = None
    start: Tensors = field(default_factory=dict)
    personal: Tensors = field(default_factory=dict)
    personal_hyper: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What training on one device gave.

    Attributes:
        update: how far the weights moved from the downloaded ones, whatever they started from.
        steps: how many steps it took, a ``float32`` scalar of 1 or more.
        hyper: the steps' hyper-parameters by name, the experiment's among them.
        personal: the second model after the same steps; empty where there is none.
    """

    update: Update
    steps: torch.Tensor
    hyper: Mapping[str, float]
    personal: Tensors = field(default_factory=dict)


@runtime_checkable
class Algorithm(Protocol):
    """The seam.

    ``server_state`` belongs to the run and ``device_state`` to one device; both are tensors by name and part of
    checkpoints. A device's state has the names, shapes and types of ``device_init``'s ever after.
    """

    @property
    def name(self) -> str:
        """A short word for it, such as ``fedavg``."""
        ...

    @property
    def weighting(self) -> Weighting:
        """What a device counts in the mean."""
        ...

    def step_settings(self, settings: StepSettings) -> StepSettings:
        """The experiment's settings with the terms switched on that this algorithm needs."""
        ...

    def init(self, weights: Weights) -> Tensors:
        """The server's state before the first round."""
        ...

    def device_init(self, weights: Weights) -> Tensors:
        """A device's state before its first round; empty: devices keep none."""
        ...

    def broadcast(self, server_state: Tensors) -> Tensors:
        """The part of the server's state that devices download with the weights."""
        ...

    def client_start(self, weights: Weights, broadcast: Tensors, device_state: Tensors) -> ClientTerms:
        """What a device adds to its steps, from the model it downloaded."""
        ...

    def client_update(self, trained: Trained, broadcast: Tensors, device_state: Tensors) -> tuple[Update, Tensors]:
        """What a device reports, and its next state. Names left out of the update do not leave the device."""
        ...

    def server_update(
        self, weights: Weights, mean: Update, server_state: Tensors, *, participation: float
    ) -> tuple[Weights, Tensors]:
        """The next model and server state from the mean of the reports (``float64``).

        ``participation`` is the share of the population whose reports are in the mean, above 0 and at most 1.
        """
        ...
