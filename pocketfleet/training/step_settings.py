"""Which terms a training step has, and the hyper-parameters that it therefore takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from pocketfleet.errors import InputError
from pocketfleet.training.weights import Tensors

__all__ = ["Hyper", "Optimizer", "StepSettings", "chosen_terms", "hyper_tensors"]

Optimizer = Literal["sgd", "adam", "adamw"]
# Hyper-parameters as float32 scalars, by the names of ``StepSettings.hyper_names``.
Hyper = Tensors

# What a user who names none gets. Adam's rate and constants are those of Kingma and Ba 2015 (arXiv:1412.6980, algorithm
# 1); SGD's rate is a common choice and no more.
_DEFAULT_RATE: Mapping[Optimizer, float] = {"sgd": 0.01, "adam": 1e-3, "adamw": 1e-3}
_ADAM = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSettings:
    """Which terms a step has. Fewer terms: a smaller program, less memory on the phone.

    ``momentum`` and ``nesterov`` are SGD's. ``weight_decay`` is added to the gradient by SGD and Adam, and taken from
    the weights apart from it by AdamW.
    """

    optimizer: Optimizer = "sgd"
    momentum: bool = False
    nesterov: bool = False
    weight_decay: bool = False
    proximal: bool = False
    clipping: bool = False
    correction: bool = False

    def __post_init__(self) -> None:
        if self.optimizer not in get_args(Optimizer):
            raise ValueError(f"optimizer must be one of {', '.join(get_args(Optimizer))}, got {self.optimizer!r}")
        if self.optimizer != "sgd" and (self.momentum or self.nesterov):
            raise ValueError(f"momentum and nesterov are SGD's; {self.optimizer} has its own moments")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs momentum")

    def __str__(self) -> str:
        terms = ("momentum", "nesterov", "weight_decay", "proximal", "clipping", "correction")
        present = [term.replace("_", " ") for term in terms if getattr(self, term)]
        return f"{self.optimizer} with {', '.join(present)}" if present else f"plain {self.optimizer}"

    @property
    def adaptive(self) -> bool:
        """Whether the optimizer is Adam or AdamW, which keep moments of the gradient."""
        return self.optimizer != "sgd"

    @property
    def hyper_names(self) -> tuple[str, ...]:
        """The hyper-parameters that a step takes, in order."""
        optional = {
            "momentum": self.momentum,
            "beta1": self.adaptive,
            "beta2": self.adaptive,
            "epsilon": self.adaptive,
            "weight_decay": self.weight_decay,
            "proximal_mu": self.proximal,
            "max_norm": self.clipping,
        }
        return ("learning_rate", *(name for name, present in optional.items() if present))


def hyper_tensors(settings: StepSettings, values: Mapping[str, float]) -> Hyper:
    """Scalars for the names that ``settings`` wants.

    Raises:
        ValueError: a wanted name is missing.
    """
    missing = [name for name in settings.hyper_names if name not in values]
    if missing:
        raise ValueError(f"hyper-parameters missing: {missing}")
    return {name: torch.tensor(values[name], dtype=torch.float32) for name in settings.hyper_names}


def chosen_terms(
    *,
    optimizer: Optimizer = "sgd",
    learning_rate: float | None = None,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    proximal_mu: float = 0.0,
    max_norm: float = 0.0,
) -> tuple[StepSettings, dict[str, float]]:
    """Settings and hyper-parameters from strengths, of which 0 leaves the term out.

    Args:
        optimizer: ``"sgd"``, ``"adam"`` or ``"adamw"``.
        learning_rate: 0.01 for SGD and 0.001 for Adam if left out.
        momentum: SGD's.
        nesterov: SGD's; needs momentum.
        weight_decay: see ``StepSettings``.
        proximal_mu: FedProx's term.
        max_norm: of the gradient, beyond which it is scaled down.

    Raises:
        InputError: terms that exclude each other.
    """
    try:
        settings = StepSettings(
            optimizer=optimizer,
            momentum=momentum > 0.0,
            nesterov=nesterov,
            weight_decay=weight_decay > 0.0,
            proximal=proximal_mu > 0.0,
            clipping=max_norm > 0.0,
        )
    except ValueError as exc:
        raise InputError(str(exc)) from exc
    values = {
        "learning_rate": _DEFAULT_RATE[optimizer] if learning_rate is None else learning_rate,
        "momentum": momentum,
        **_ADAM,
        "weight_decay": weight_decay,
        "proximal_mu": proximal_mu,
        "max_norm": max_norm,
    }
    return settings, {name: values[name] for name in settings.hyper_names}
