"""Whoever executes a task's three methods: eager PyTorch or an exported program, behind one Protocol."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import nn

from pocketfleet.export.manifest import PTE_FILE
from pocketfleet.export.signature import METHODS, MethodSignature, Signature
from pocketfleet.training.dropout import drawn
from pocketfleet.training.replayed_step import ReplayedStep
from pocketfleet.training.task import Task
from pocketfleet.training.train_step import Hyper, StepSettings, TrainState, TrainStep, evaluate, predict
from pocketfleet.training.weights import Tensors, Weights

if TYPE_CHECKING:
    from pocketfleet.export.bundle import Bundle

__all__ = ["EagerSession", "FlatSession", "Runtime", "Session", "open_session"]

Runtime = Literal["executorch", "onnx"]


class Session(Protocol):
    """Executes steps, predictions and evaluations; holds no weights.

    Batches are of any size from 1, for an exported program up to the bundle's ``max_batch`` (``ValueError`` beyond).
    Inputs are not changed; results are the caller's own.
    """

    def train_step(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, hyper: Hyper, *, dropout_seed: int = 0
    ) -> tuple[torch.Tensor, TrainState]:
        """The mean loss before the step (scalar) and the next state.

        ``dropout_seed`` draws the masks of a model that drops (``training.dropout``).
        """
        ...

    def predict(self, weights: Weights, x: torch.Tensor) -> torch.Tensor:
        """The model's output in evaluation mode."""
        ...

    def evaluate(self, weights: Weights, x: torch.Tensor, y: torch.Tensor) -> Tensors:
        """Mean loss and metrics over the batch, as scalars by name; ``loss`` comes first."""
        ...


class EagerSession:
    """The reference: PyTorch itself, one operator at a time."""

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        settings: StepSettings,
        *,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        """Take the parts; ``memory_format`` is how images and kernels lie in memory while training."""
        self._task, self._model = task, model
        self._memory_format = memory_format
        self._step = TrainStep(model, task.loss, settings)
        self._replayed = ReplayedStep(self._without_draws, laid=self._laid)
        # Found at the first step: watching for dice costs time in every operator.
        self._drops: bool | None = None

    def train_step(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, hyper: Hyper, *, dropout_seed: int = 0
    ) -> tuple[torch.Tensor, TrainState]:
        """One step of ``TrainStep``."""
        if self._drops is False:
            return self._replayed(state, x, y, None, hyper)
        # Weights keep the format from step to step: only the first of a device's steps copies them.
        x, y, state = self._laid(x), self._laid(y), state.mapped(self._laid)
        source, sites = drawn(dropout_seed), []

        def watched(site: int, shape: Sequence[int]) -> torch.Tensor:
            sites.append(site)
            return source(site, shape)

        result = self._step(state, x, y, hyper, watched)
        # A step that failed, such as batch norm's on a single example, has not come to see all of the model.
        self._drops = bool(sites)
        return result

    def _without_draws(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None, hyper: Hyper
    ) -> tuple[torch.Tensor, TrainState]:
        del mask  # one device's batches are not padded
        return self._step(state, x, y, hyper)

    def _laid(self, value: torch.Tensor) -> torch.Tensor:
        return value.contiguous(memory_format=self._memory_format) if value.dim() == 4 else value.contiguous()

    def predict(self, weights: Weights, x: torch.Tensor) -> torch.Tensor:
        """The model's output in evaluation mode."""
        return predict(self._model, weights, x)

    def evaluate(self, weights: Weights, x: torch.Tensor, y: torch.Tensor) -> Tensors:
        """Mean loss and metrics over the batch."""
        with torch.no_grad():
            return evaluate(self._model, self._task.loss, self._task.metrics, weights, x, y)


@dataclass(frozen=True, slots=True)
class _Order:
    """The names of one method's inputs by group, so that flattening is one pass over lists."""

    trainable: tuple[str, ...]
    buffer: tuple[str, ...]
    slot: tuple[str, ...]
    frozen: tuple[str, ...]
    anchor: tuple[str, ...]
    correction: tuple[str, ...]
    hyper: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, method: MethodSignature) -> "_Order":
        return cls(
            trainable=method.input_names("trainable"),
            buffer=method.input_names("buffer"),
            slot=method.input_names("slot"),
            frozen=method.input_names("frozen"),
            anchor=method.input_names("anchor"),
            correction=method.input_names("correction"),
            hyper=method.input_names("hyper"),
            outputs=tuple(spec.name for spec in method.outputs),
        )

    def weights(self, trainable: Tensors, buffers: Tensors) -> list[torch.Tensor]:
        return [*_in_order(trainable, self.trainable), *_in_order(buffers, self.buffer)]


def _in_order(tensors: Mapping[str, torch.Tensor], names: tuple[str, ...]) -> list[torch.Tensor]:
    # Programs read memory as it lies; for a tensor that is contiguous already this is free.
    return [tensors[name].contiguous() for name in names]


class FlatSession(ABC):
    """What the sessions of both runtimes share: from states and weights to flat lists and back."""

    def __init__(self, signature: Signature, *, max_batch: int) -> None:
        self._max_batch = max_batch
        self._order = {name: _Order.of(signature.method(name)) for name in METHODS}
        self._uniforms = [spec for spec in signature.train_step.inputs if spec.role == "uniform"]

    def _check_batch(self, x: torch.Tensor) -> None:
        # The programs' memory is planned for the largest batch; what is beyond it fails without a word on why.
        if not 1 <= x.shape[0] <= self._max_batch:
            raise ValueError(f"a batch holds 1 to {self._max_batch} examples in this bundle, got {x.shape[0]}")

    def _drawn(self, dropout_seed: int, *, batch: int) -> list[torch.Tensor]:
        source = drawn(dropout_seed)
        return [source(site, spec.sizes(batch)) for site, spec in enumerate(self._uniforms)]

    @abstractmethod
    def _run(self, method: str, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Execute one method; the outputs must be the caller's own memory."""

    def train_step(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, hyper: Hyper, *, dropout_seed: int = 0
    ) -> tuple[torch.Tensor, TrainState]:
        """One step of the exported program."""
        order = self._order["train_step"]
        self._check_batch(x)
        loss, *values = self._run(
            "train_step",
            [
                *order.weights(state.trainable, state.buffers),
                *_in_order(state.optimizer_slots, order.slot),
                *_in_order(state.frozen, order.frozen),
                *_in_order(state.anchor, order.anchor),
                *_in_order(state.correction, order.correction),
                x.contiguous(),
                y.contiguous(),
                *_in_order(hyper, order.hyper),
                *self._drawn(dropout_seed, batch=x.shape[0]),
            ],
        )
        first, second = len(order.trainable), len(order.trainable) + len(order.buffer)
        return loss, replace(
            state,
            trainable=dict(zip(order.trainable, values[:first], strict=True)),
            buffers=dict(zip(order.buffer, values[first:second], strict=True)),
            optimizer_slots=dict(zip(order.slot, values[second:], strict=True)),
        )

    def predict(self, weights: Weights, x: torch.Tensor) -> torch.Tensor:
        """The output of the exported model."""
        order = self._order["predict"]
        self._check_batch(x)
        inputs = [*order.weights(weights.trainable, weights.buffers), *_in_order(weights.frozen, order.frozen)]
        return self._run("predict", [*inputs, x.contiguous()])[0]

    def evaluate(self, weights: Weights, x: torch.Tensor, y: torch.Tensor) -> Tensors:
        """Loss and metrics of the exported model."""
        order = self._order["evaluate"]
        self._check_batch(x)
        inputs = [*order.weights(weights.trainable, weights.buffers), *_in_order(weights.frozen, order.frozen)]
        values = self._run("evaluate", [*inputs, x.contiguous(), y.contiguous()])
        return dict(zip(order.outputs, values, strict=True))


def open_session(bundle: "Bundle", runtime: Runtime) -> Session:
    """A session over a bundle's programs.

    Raises:
        ValueError: no such runtime.
        InputError: the bundle was not exported for it.
    """
    if runtime in {"executorch", "onnx"}:
        # Refuses one that the bundle was not exported for.
        bundle.footprint(runtime)
    if runtime == "executorch":
        from pocketfleet.export.executorch import ExecutorchSession

        return ExecutorchSession(bundle.path / PTE_FILE, bundle.signature, max_batch=bundle.max_batch)
    if runtime == "onnx":
        from pocketfleet.export.onnx import OnnxSession

        return OnnxSession(bundle.path, bundle.signature, max_batch=bundle.max_batch)
    raise ValueError(f"runtime must be executorch or onnx, got {runtime!r}")
