"""A program's method before it is traced: a function of flat tensors, in the order of ``signature``, with examples.

1. It calls the very functions that train, predict and evaluate eagerly.
2. Examples are copies: a start's anchor is its weights, and tracing would take one tensor given twice for one input.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from pocketfleet.export.layers import OPTIMIZER, label_as
from pocketfleet.export.signature import BATCH, Role, TensorSpec
from pocketfleet.training.examples import Examples
from pocketfleet.training.task import Task
from pocketfleet.training.train_step import Hyper, TrainState, TrainStep, evaluate, predict
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["FlatMethod", "evaluate_method", "example_batch", "predict_method", "train_method"]


@dataclass(frozen=True, slots=True)
class FlatMethod:
    """A method before tracing: a function of flat tensors and its example inputs with their specs."""

    call: Callable[..., tuple[torch.Tensor, ...]]
    inputs: tuple[TensorSpec, ...]
    example: tuple[torch.Tensor, ...]
    output_names: Callable[[], list[tuple[Role, str]]] = field(repr=False)


def _dtype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _spec(role: Role, name: str, value: torch.Tensor, *, batch: bool) -> TensorSpec:
    shape = tuple(int(size) for size in value.shape)
    return TensorSpec(role=role, name=name, shape=(BATCH, *shape[1:]) if batch else shape, dtype=_dtype(value))


def _flatten(groups: Sequence[tuple[Role, Tensors]]) -> tuple[list[TensorSpec], list[torch.Tensor]]:
    """Specs and tensors of groups in order; sorted by name within a group, except ``hyper``."""
    specs, values = [], []
    for role, tensors in groups:
        for name in tensors if role == "hyper" else sorted(tensors):
            specs.append(_spec(role, name, tensors[name], batch=role in {"x", "y"}))
            values.append(tensors[name])
    return specs, values


def _apart(values: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Copies: a start's anchor is its weights, and tracing would take one tensor given twice for one input."""
    return tuple(value.clone() for value in values)


def _unflatten(specs: Sequence[TensorSpec], values: Sequence[torch.Tensor]) -> dict[Role, Tensors]:
    groups: dict[Role, Tensors] = {}
    for spec, value in zip(specs, values, strict=True):
        groups.setdefault(spec.role, {})[spec.name] = value
    return groups


def _weights_of(groups: Mapping[Role, Tensors]) -> Weights:
    return Weights(trainable=groups["trainable"], buffers=groups.get("buffer", {}), frozen=groups.get("frozen", {}))


def train_method(step: TrainStep, weights: Weights, batch: Examples) -> FlatMethod:
    """One training step, from a start at ``weights``."""
    state = TrainState.start(weights, step.settings)
    hyper: Hyper = {name: torch.ones(()) for name in step.settings.hyper_names}
    specs, values = _flatten(
        [
            ("trainable", state.trainable),
            ("buffer", state.buffers),
            ("slot", state.optimizer_slots),
            ("frozen", state.frozen),
            ("anchor", state.anchor),
            ("correction", state.correction),
            ("x", {"x": batch.x}),
            ("y", {"y": batch.y}),
            ("hyper", hyper),
        ]
    )
    sites = _dropout_sites(step, state, batch)
    specs += [site for site, _ in sites]
    values += [example for _, example in sites]

    def call(*flat: torch.Tensor) -> tuple[torch.Tensor, ...]:
        groups = _unflatten(specs, flat)
        start = TrainState(
            trainable=groups["trainable"],
            frozen=groups.get("frozen", {}),
            buffers=groups.get("buffer", {}),
            optimizer_slots=groups.get("slot", {}),
            anchor=groups.get("anchor", {}),
            correction=groups.get("correction", {}),
        )
        uniforms = groups.get("uniform")
        loss, gradient, buffers = step.gradient(
            start, groups["x"]["x"], groups["y"]["y"], (lambda site, _: uniforms[str(site)]) if uniforms else None
        )
        label_as(OPTIMIZER)
        end = step.update(replace(start, buffers=buffers), gradient, groups["hyper"])
        _, outputs = _flatten([("trainable", end.trainable), ("buffer", end.buffers), ("slot", end.optimizer_slots)])
        return (loss, *outputs)

    def output_names() -> list[tuple[Role, str]]:
        updated = [(spec.role, spec.name) for spec in specs if spec.role in {"trainable", "buffer", "slot"}]
        return [("loss", "loss"), *updated]

    return FlatMethod(call, tuple(specs), _apart(values), output_names)


def _dropout_sites(step: TrainStep, state: TrainState, batch: Examples) -> list[tuple[TensorSpec, torch.Tensor]]:
    """Specs and examples of the numbers that masks are made of.

    A size that differs between two batch sizes is the batch; anything else that depends on it cannot be exported.
    """
    most, fewer = (
        _mask_shapes(step, state, batch),
        _mask_shapes(step, state, example_batch(batch, batch=len(batch) + 1)),
    )
    found = []
    for site, (shape, other) in enumerate(zip(most, fewer, strict=True)):
        named = tuple(BATCH if a != b else a for a, b in zip(shape, other, strict=True))
        if named.count(BATCH) > 1 or any(
            a != len(batch) for a, size in zip(shape, named, strict=True) if size == BATCH
        ):
            raise ValueError(f"the mask of dropout {site}, {list(shape)}, has sizes computed from the batch size")
        example = torch.ones(shape)
        found.append((TensorSpec(role="uniform", name=str(site), shape=named, dtype=_dtype(example)), example))
    return found


def _mask_shapes(step: TrainStep, state: TrainState, batch: Examples) -> list[tuple[int, ...]]:
    """Shapes of the masks that one step draws, in order."""
    shapes: list[tuple[int, ...]] = []

    def source(_site: int, shape: Sequence[int]) -> torch.Tensor:
        shapes.append(tuple(int(size) for size in shape))
        return torch.ones(tuple(shape))

    step.gradient(state, batch.x, batch.y, source)
    return shapes


def predict_method(model: nn.Module, weights: Weights, x: torch.Tensor) -> FlatMethod:
    """The model's output for a batch ``x``, in evaluation mode."""
    specs, values = _flatten(
        [
            ("trainable", weights.trainable),
            ("buffer", weights.buffers),
            ("frozen", weights.frozen),
            ("x", {"x": x}),
        ]
    )

    def call(*flat: torch.Tensor) -> tuple[torch.Tensor, ...]:
        groups = _unflatten(specs, flat)
        return (predict(model, _weights_of(groups), groups["x"]["x"]),)

    return FlatMethod(call, tuple(specs), _apart(values), lambda: [("output", "output")])


def evaluate_method(task: Task, model: nn.Module, weights: Weights, batch: Examples) -> FlatMethod:
    """The mean loss of a batch and the mean of each of the task's metrics."""
    specs, values = _flatten(
        [
            ("trainable", weights.trainable),
            ("buffer", weights.buffers),
            ("frozen", weights.frozen),
            ("x", {"x": batch.x}),
            ("y", {"y": batch.y}),
        ]
    )
    names: list[str] = []

    def call(*flat: torch.Tensor) -> tuple[torch.Tensor, ...]:
        groups = _unflatten(specs, flat)
        with torch.no_grad():
            scores = evaluate(model, task.loss, task.metrics, _weights_of(groups), groups["x"]["x"], groups["y"]["y"])
        names[:] = list(scores)
        return tuple(scores.values())

    def output_names() -> list[tuple[Role, str]]:
        metrics: list[tuple[Role, str]] = [("metric", name) for name in names[1:]]
        return [("loss", "loss"), *metrics]

    return FlatMethod(call, tuple(specs), _apart(values), output_names)


def example_batch(examples: Examples, *, batch: int) -> Examples:
    """``batch`` rows, repeated where there are fewer."""
    return examples.take(torch.arange(batch) % len(examples))
