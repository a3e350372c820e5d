"""Made-up inputs for a bundle's training step, from its signature alone: right shapes and types, no data set needed.

1. Weights are the bundle's, optimizer slots those of a first step, hyper-parameters the manifest's defaults.
2. ``x`` is drawn: standard normal where it is floating-point, 0 where it counts (an index, a token), since 0 is within
   any vocabulary. ``y`` is 0: a class that there is, and a value that every loss takes.
3. Numbers for masks (role ``uniform``) are those of seed 0. A session draws them anew at each step, as on a phone; that
   is part of its time.
4. Every timed step starts from this same state. Weights that trained on would drift, and a loss that has become 0
   leaves gradients too small for normal floating-point numbers, which processors handle many times slower.
"""

from dataclasses import dataclass
from typing import Any

import torch

from pocketfleet.export.bundle import Bundle
from pocketfleet.export.session import Session
from pocketfleet.export.signature import TensorSpec
from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.dropout import drawn
from pocketfleet.training.train_step import Hyper, TrainState, hyper_tensors

__all__ = ["StepInputs", "step_inputs"]

# Any number does: results carry no figure that depends on it.
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInputs:
    """What one training step takes; ``flat`` is the same in the order of the signature."""

    state: TrainState
    x: torch.Tensor
    y: torch.Tensor
    hyper: Hyper
    flat: tuple[torch.Tensor, ...]

    def run(self, session: Session) -> float:
        """One step by ``session``; returns the loss before it."""
        loss, _ = session.train_step(self.state, self.x, self.y, self.hyper)
        return float(loss)


def step_inputs(bundle: Bundle, *, batch: int) -> StepInputs:
    """Inputs for one batch size, 1 to the bundle's largest."""
    specs = bundle.signature.train_step.inputs
    state = TrainState.start(bundle.weights(), bundle.settings)
    hyper = hyper_tensors(bundle.settings, bundle.hyper)
    x, y = (_made(next(spec for spec in specs if spec.role == role), batch) for role in ("x", "y"))
    masks = [spec for spec in specs if spec.role == "uniform"]
    source = drawn(_SEED)
    groups: dict[str, dict[str, Any]] = {
        "trainable": state.trainable,
        "buffer": state.buffers,
        "slot": state.optimizer_slots,
        "frozen": state.frozen,
        "anchor": state.anchor,
        "correction": state.correction,
        "x": {"x": x},
        "y": {"y": y},
        "hyper": hyper,
        "uniform": {spec.name: source(site, spec.sizes(batch)) for site, spec in enumerate(masks)},
    }
    return StepInputs(
        state=state,
        x=x,
        y=y,
        hyper=hyper,
        flat=tuple(groups[spec.role][spec.name].contiguous() for spec in specs),
    )


def _made(spec: TensorSpec, batch: int) -> torch.Tensor:
    sizes, dtype = spec.sizes(batch), getattr(torch, spec.dtype)
    if spec.role == "x" and dtype.is_floating_point:
        values = normal(draw_key(_SEED, "bench_inputs"), int(torch.Size(sizes).numel()))
        return torch.from_numpy(values).reshape(sizes).to(dtype)
    return torch.zeros(sizes, dtype=dtype)
