"""One on-device training step as a pure function of weights, optimizer state, batch and hyper-parameters.

The same function runs eagerly and is traced into the programs of both runtimes. In order:

1. loss: the mean over the batch of the task's loss, the model in training mode;
2. gradient of the loss with respect to the trainable weights, plus ``proximal_mu * (w - anchor)``
   (FedProx: Li et al. 2020, arXiv:1812.06127, equation 2), plus ``correction`` (SCAFFOLD, FedDyn);
3. clipping of the whole gradient to a norm of at most ``max_norm`` (Pascanu et al. 2013, arXiv:1211.5063, algorithm 1);
4. an update by ``client_optimizer``.

Which terms are present is settled by ``StepSettings`` before tracing; how strong they are is an input.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import nn
from torch.func import functional_call

from pocketfleet.training.client_optimizer import descend, empty_slots
from pocketfleet.training.dropout import Uniforms, UniformSource
from pocketfleet.training.step_settings import Hyper, StepSettings, hyper_tensors
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["Hyper", "Loss", "StepSettings", "TrainState", "TrainStep", "evaluate", "hyper_tensors", "predict"]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# The parts of a state in which devices differ.
_OWN = ("trainable", "buffers", "optimizer_slots", "anchor", "correction")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainState:
    """Everything a step reads and writes beside its batch; tensors by name.

    ``optimizer_slots`` holds what ``client_optimizer`` keeps; ``anchor`` (the downloaded weights) and ``correction``
    are shaped as the trainable weights. The last three are empty where the settings leave them out.
    """

    trainable: Tensors
    frozen: Tensors
    buffers: Tensors
    optimizer_slots: Tensors = field(default_factory=dict)
    anchor: Tensors = field(default_factory=dict)
    correction: Tensors = field(default_factory=dict)

    def own(self) -> dict[str, Tensors]:
        """The parts in which devices differ, by name: all but the frozen weights."""
        return {name: getattr(self, name) for name in _OWN}

    def mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "TrainState":
        """Every tensor of the ``own`` parts changed."""
        return replace(
            self, **{part: {name: change(value) for name, value in of.items()} for part, of in self.own().items()}
        )

    @classmethod
    def start(
        cls,
        weights: Weights,
        settings: StepSettings,
        *,
        correction: Tensors | None = None,
        trainable: Tensors | None = None,
    ) -> "TrainState":
        """The state before a device's first step: slots at zero, the anchor at the downloaded ``weights``.

        ``trainable`` are weights by name to start from in place of the downloaded ones.
        """
        if settings.correction and correction is None:
            correction = {name: torch.zeros_like(value) for name, value in weights.trainable.items()}
        return cls(
            trainable=weights.trainable | (trainable or {}),
            frozen=dict(weights.frozen),
            buffers=dict(weights.buffers),
            optimizer_slots=empty_slots(weights.trainable, settings),
            anchor=dict(weights.trainable) if settings.proximal else {},
            correction=correction if settings.correction and correction is not None else {},
        )


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
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, hyper: Hyper, uniforms: UniformSource | None = None
    ) -> tuple[torch.Tensor, TrainState]:
        """One step.

        Args:
            state: not changed.
            x: inputs ``[batch, ...]``, any batch size from 1.
            y: targets ``[batch, ...]``.
            hyper: ``float32`` scalars, one for each of ``settings.hyper_names``.
            uniforms: what masks are made of in a model that drops; ``None`` for one that does not.

        Returns:
            The mean loss before the step (scalar) and the next state.
        """
        loss, gradient, buffers = self.gradient(state, x, y, uniforms)
        return loss, self.update(replace(state, buffers=buffers), gradient, hyper)

    def gradient(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, uniforms: UniformSource | None = None
    ) -> tuple[torch.Tensor, Tensors, Tensors]:
        """Mean loss (scalar), its gradient by name, and the buffers after the forward pass."""
        leaves = {name: value.detach().requires_grad_() for name, value in state.trainable.items()}
        # One dictionary, into which functional_call puts a buffer that the model replaces instead of writing to it.
        tensors = leaves | state.frozen | {name: value.clone() for name, value in state.buffers.items()}
        self.model.train()
        with Uniforms(uniforms) if uniforms else nullcontext():
            output = functional_call(self.model, tensors, (x,))
        loss = self.loss(output, y).mean()
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        buffers = {name: tensors[name].detach() for name in state.buffers}
        return loss.detach(), dict(zip(leaves, gradients, strict=True)), buffers

    def update(self, state: TrainState, gradient: Tensors, hyper: Hyper) -> TrainState:
        """The state after a step along the gradient of the loss, to which the terms of the settings are added."""
        gradient = self._add_terms(gradient, state, hyper)
        trainable, slots = descend(state.trainable, gradient, state.optimizer_slots, hyper, self.settings)
        return replace(state, trainable=trainable, optimizer_slots=slots)

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
