"""FedPer: a body that all share, a head of each device's own (Arivazhagan et al. 2019, arXiv:1912.00818, algorithm 1).

Head and body are trained together, which Pillutla et al. 2022 (arXiv:2204.03809, algorithm 2) call FedSim; Collins et
al. 2021 (arXiv:2102.07078) train one after the other. The server never moves the head, so that every version holds the
first model's: a device keeps its head as the difference from that one, and starts from their sum.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch

from pocketfleet.errors import InputError
from pocketfleet.training.algorithm import ClientTerms, Trained
from pocketfleet.training.algorithms.fedavg import FedAvg
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["FedPer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FedPer(FedAvg):
    """``private`` holds patterns of the trainable weights that stay, such as ``"head.*"``; buffers are shared."""

    private: tuple[str, ...]
    name: str = "fedper"

    def init(self, weights: Weights) -> Tensors:
        """The server optimizer's state, of the body alone.

        Raises:
            InputError: a pattern matches no trainable weight, or they match all.
        """
        names = list(weights.trainable)
        way_out = f"algorithm.private must name some of the model's trainable weights, which are {', '.join(names)}"
        for pattern in self.private:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise InputError(f"{way_out}; {pattern!r} names none")
        shared = {name: value for name, value in weights.trainable.items() if not self._is_private(name)}
        if not 0 < len(shared) < len(names):
            raise InputError(f"{way_out}; {list(self.private)} leaves {len(shared)} of {len(names)} to share")
        return self.server_optimizer.init(shared)

    def device_init(self, weights: Weights) -> Tensors:
        """No difference from the first model's head."""
        return {name: torch.zeros_like(weights.trainable[name]) for name in self._private(weights.trainable)}

    def client_start(self, weights: Weights, broadcast: Tensors, device_state: Tensors) -> ClientTerms:  # noqa: ARG002
        """The device's own head in place of the downloaded one."""
        return ClientTerms(start={name: weights.trainable[name] + value for name, value in device_state.items()})

    def client_update(self, trained: Trained, broadcast: Tensors, device_state: Tensors) -> tuple[Update, Tensors]:  # noqa: ARG002
        """The body's update, and the head."""
        delta = trained.update.delta
        body = {name: value for name, value in delta.items() if not self._is_private(name)}
        return replace(trained.update, delta=body), {name: delta[name] for name in self._private(delta)}

    def _private(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self._is_private(name)]

    def _is_private(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.private)
