"""One on-device training step as a pure function of weights, optimizer state, batch and hyper-parameters.

The same function runs eagerly and is traced into the programs of both runtimes. In order:

1. loss: the mean over the batch of the task's loss, the model in training mode;
2. gradient of the loss with respect to the trainable weights, plus ``proximal_mu * (w - anchor)``
   (FedProx: Li et al. 2020, arXiv:1812.06127, equation 2), plus ``correction`` (SCAFFOLD, FedDyn);
3. clipping of the whole gradient to a norm of at most ``max_norm`` (Pascanu et al. 2013, arXiv:1211.5063, algorithm 1);
4. SGD as ``torch.optim.SGD`` does it, without dampening: weight decay, momentum, Nesterov.

Which terms are present is settled by ``StepSettings`` before tracing; how strong they are is an input.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace

import torch
from torch import nn
from torch.func import functional_call

from pocketfleet.training.weights import Tensors, Weights

__all__ = ["Hyper", "Loss", "StepSettings", "TrainState", "TrainStep", "evaluate", "hyper_tensors", "predict"]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# Hyper-parameters as float32 scalars, by the names of ``StepSettings.hyper_names``.
Hyper = Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSettings:
    """Which terms a step has. Fewer terms: a smaller program, less memory on the phone."""

    momentum: bool = False
    nesterov: bool = False
    weight_decay: bool = False
    proximal: bool = False
    clipping: bool = False
    correction: bool = False

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs momentum")

    def __str__(self) -> str:
        present = [field.name.replace("_", " ") for field in fields(self) if getattr(self, field.name)]
        return f"with {', '.join(present)}" if present else "without momentum or other terms"

    @property
    def hyper_names(self) -> tuple[str, ...]:
        """The hyper-parameters that a step takes, in order."""
        optional = {
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
            "proximal_mu": self.proximal,
            "max_norm": self.clipping,
        }
        return ("learning_rate", *(name for name, present in optional.items() if present))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainState:
    """Everything a step reads and writes beside its batch; tensors by name.

    ``optimizer_slots`` holds momentum buffers named as the weights; ``anchor`` (the downloaded weights) and
    ``correction`` are shaped as the trainable weights. The last three are empty where the settings leave them out.
    """

    trainable: Tensors
    frozen: Tensors
    buffers: Tensors
    optimizer_slots: Tensors = field(default_factory=dict)
    anchor: Tensors = field(default_factory=dict)
    correction: Tensors = field(default_factory=dict)

    @classmethod
    def start(cls, weights: Weights, settings: StepSettings, *, correction: Tensors | None = None) -> "TrainState":
        """The state before a device's first step: slots at zero, the anchor at the downloaded weights."""
        zeros = {name: torch.zeros_like(value) for name, value in weights.trainable.items()}
        if settings.correction and correction is None:
            correction = dict(zeros)
        return cls(
            trainable=dict(weights.trainable),
            frozen=dict(weights.frozen),
            buffers=dict(weights.buffers),
            optimizer_slots=zeros if settings.momentum else {},
            anchor=dict(weights.trainable) if settings.proximal else {},
            correction=correction if settings.correction and correction is not None else {},
        )


def hyper_tensors(settings: StepSettings, values: Mapping[str, float]) -> Hyper:
    """Scalars for the names that ``settings`` wants.

    Raises:
        ValueError: a wanted name is missing.
    """
    missing = [name for name in settings.hyper_names if name not in values]
    if missing:
        raise ValueError(f"hyper-parameters missing: {missing}")
    return {name: torch.tensor(values[name], dtype=torch.float32) for name in settings.hyper_names}


@dataclass(frozen=True, slots=True)
class TrainStep:
    """The step of one model under one loss; call it with a state, a batch and hyper-parameters.

    The model's own weights are never read: only its structure is. A trainable weight that the loss does not use has a
    gradient of 0, so that weight decay and momentum act on it (``torch.optim`` would skip it).
    """

    model: nn.Module
    loss: Loss
    settings: StepSettings

    def __call__(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, hyper: Hyper
    ) -> tuple[torch.Tensor, TrainState]:
        """One step.

        Args:
            state: not changed.
            x: inputs ``[batch, ...]``, any batch size from 1.
            y: targets ``[batch, ...]``.
            hyper: ``float32`` scalars, one for each of ``settings.hyper_names``.

        Returns:
            The mean loss before the step (scalar) and the next state.
        """
        loss, gradient, buffers = self.gradient(state, x, y)
        gradient = self._add_terms(gradient, state, hyper)
        trainable, slots = self._descend(gradient, state, hyper)
        return loss, replace(state, trainable=trainable, buffers=buffers, optimizer_slots=slots)

    def gradient(self, state: TrainState, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, Tensors, Tensors]:
        """Mean loss (scalar), its gradient by name, and the buffers after the forward pass."""
        leaves = {name: value.detach().requires_grad_() for name, value in state.trainable.items()}
        # One dictionary, into which functional_call puts a buffer that the model replaces instead of writing to it.
        tensors = leaves | state.frozen | {name: value.clone() for name, value in state.buffers.items()}
        self.model.train()
        output = functional_call(self.model, tensors, (x,))
        loss = self.loss(output, y).mean()
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        buffers = {name: tensors[name].detach() for name in state.buffers}
        return loss.detach(), dict(zip(leaves, gradients, strict=True)), buffers

    def _add_terms(self, gradient: Tensors, state: TrainState, hyper: Hyper) -> Tensors:
        if self.settings.proximal:
            gradient = {
                name: g + hyper["proximal_mu"] * (state.trainable[name] - state.anchor[name])
                for name, g in gradient.items()
            }
        if self.settings.correction:
            gradient = {name: g + state.correction[name] for name, g in gradient.items()}
        if self.settings.clipping:
            squares = torch.stack([g.square().sum() for g in gradient.values()])
            # 1e-6 keeps the ratio finite at a gradient of zero, as torch.nn.utils.clip_grad_norm_ does.
            scale = (hyper["max_norm"] / (squares.sum().sqrt() + 1e-6)).clamp(max=1.0)
            gradient = {name: g * scale for name, g in gradient.items()}
        return gradient

    def _descend(self, gradient: Tensors, state: TrainState, hyper: Hyper) -> tuple[Tensors, Tensors]:
        trainable, slots = {}, {}
        for name, weight in state.trainable.items():
            g = gradient[name]
            if self.settings.weight_decay:
                g = g + hyper["weight_decay"] * weight
            if self.settings.momentum:
                slots[name] = hyper["momentum"] * state.optimizer_slots[name] + g
                g = g + hyper["momentum"] * slots[name] if self.settings.nesterov else slots[name]
            trainable[name] = weight - hyper["learning_rate"] * g
        return trainable, slots


def predict(model: nn.Module, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """The model's output for ``x`` in evaluation mode under ``weights``; no gradient."""
    model.eval()
    with torch.no_grad():
        output: torch.Tensor = functional_call(model, (weights.trainable, weights.frozen, weights.buffers), (x,))
    return output


def evaluate(
    model: nn.Module,
    loss: Loss,
    metrics: Callable[[torch.Tensor, torch.Tensor], Tensors],
    weights: Weights,
    x: torch.Tensor,
    y: torch.Tensor,
) -> Tensors:
    """Mean loss and mean of each per-example metric over a batch, as scalars; ``loss`` comes first."""
    output = predict(model, weights, x)
    return {"loss": loss(output, y).mean()} | {
        name: value.to(torch.float32).mean() for name, value in metrics(output, y).items()
    }
