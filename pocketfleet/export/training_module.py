"""``training_module.pte``: loss and gradients in the form that ExecuTorch's own ``TrainingModule`` and SGD take.

It differs from ``model.pte`` in that the program holds the weights, which an optimizer of ExecuTorch's changes in
place; there is neither another optimizer than SGD nor a ``predict`` that would see what was learnt. The batch size is
fixed. Weights are named as in the model, with ``model.`` before the name.

1. The method is ``forward(x, y) -> loss``, the joint graph of ``torch.export``, with our decompositions.
2. A model whose buffers a step changes is refused: the file's tables of gradients and weights count them too, and names
   shift without an error.
3. The file keeps equal tensors once. Two weights that start equal, as those of two layer normalisations do, would share
   memory, and each be changed by the other's gradient. The first value of every further one is moved to the next float.

Tried with torch 2.13.0: ``torch.export.experimental._export_forward_backward``; and executorch 1.5.1:
``executorch.extension.training._load_for_executorch_for_training_from_buffer``.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pocketfleet.errors import InputError
from pocketfleet.export.decompositions import decomposition_table
from pocketfleet.export.executorch import lower
from pocketfleet.export.gate import GRADIENT_TOLERANCE, STEPS, STEPS_TOLERANCE
from pocketfleet.export.gate_report import GateRow
from pocketfleet.export.gate_trial import moves, relative
from pocketfleet.export.model_copy import model_copy
from pocketfleet.export.program import plain_operators
from pocketfleet.export.quiet import quiet_export, quiet_stderr
from pocketfleet.training.examples import Examples
from pocketfleet.training.task import Task
from pocketfleet.training.train_step import Loss, StepSettings, TrainState, TrainStep
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["check_training_module", "write_training_module"]

_METHOD = "forward"
_PREFIX = "model."
# Small enough that no model of ordinary scale explodes in 20 steps, large enough that a step is no rounding.
_LEARNING_RATE = 0.01
# What rule 3 may change: a float of some of a tensor's values, 1.2e-7 of each, for a handful of equal tensors.
_WEIGHTS_TOLERANCE = 1e-5


class _JointLoss(nn.Module):
    """The mean loss of a batch, which the joint graph differentiates."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self._loss(self.model(x), y).mean()


def write_training_module(
    task: Task, model: nn.Module, weights: Weights, examples: Examples, *, batch_size: int, path: Path
) -> None:
    """Write the joint graph to ``path``.

    Args:
        task: gives the loss.
        model: only its structure is read.
        weights: what the file starts from.
        examples: at least one; only shapes and types are read.
        batch_size: of every call.
        path: of the file.

    Raises:
        InputError: a step changes the model's buffers or draws masks, or the model cannot be exported; the message
            holds the reason.
    """
    if weights.buffers:
        raise InputError(
            f"a training module cannot hold buffers that training changes, and the model has {sorted(weights.buffers)}:"
            " its names of gradients would shift. Replace batch normalisation by nn.GroupNorm, or leave the training "
            "module out; model.pte trains such models"
        )
    batch = _batch(examples, 0, batch_size)
    if _drops(task, model, weights, batch):
        raise InputError(
            "a training module cannot take the masks of dropout, and ExecuTorch's own dropout does not scale what it "
            "keeps: set its probability to 0, or leave the training module out; model.pte trains such models"
        )
    joint = _JointLoss(_apart(model_copy(model, weights)), task.loss).train()
    # Exporting runs the user's model and loss, which may raise anything.
    try:
        with quiet_export():
            path.write_bytes(lower({_METHOD: _joint_graph(joint, batch)}, {}).buffer)
    except Exception as exc:
        reason = (str(exc).splitlines() or [""])[0]
        raise InputError(
            f"the model of task {task.name!r} cannot be exported as a training module: {type(exc).__name__}: {reason}; "
            "leave the training module out"
        ) from exc


def _drops(task: Task, model: nn.Module, weights: Weights, batch: Examples) -> bool:
    """Whether a training step draws masks."""
    sites: list[int] = []

    def source(site: int, shape: Sequence[int]) -> torch.Tensor:
        sites.append(site)
        return torch.ones(tuple(shape))

    step = TrainStep(model, task.loss, StepSettings())
    step.gradient(TrainState.start(weights, step.settings), batch.x, batch.y, source)
    return bool(sites)


def _joint_graph(joint: nn.Module, batch: Examples) -> torch.export.ExportedProgram:
    from torch.export.experimental import _export_forward_backward

    with plain_operators():
        exported = torch.export.export(joint, (batch.x, batch.y), strict=False)
        joint_graph = _export_forward_backward(exported)
        decomposed: torch.export.ExportedProgram = joint_graph.run_decompositions(decomposition_table("executorch"))
    return decomposed


def _apart(model: nn.Module) -> nn.Module:
    """Rule 3."""
    seen: set[str] = set()
    with torch.no_grad():
        for value in model.parameters():
            while (digest := _digest(value)) in seen:
                first = value.view(-1)[:1]
                first.copy_(torch.nextafter(first, torch.full_like(first, torch.inf)))
            seen.add(digest)
    return model


def _digest(value: torch.Tensor) -> str:
    return hashlib.sha256(value.detach().contiguous().numpy().tobytes()).hexdigest()


def _batch(examples: Examples, index: int, size: int) -> Examples:
    return examples.take((torch.arange(size) + index * size) % len(examples))


def check_training_module(
    path: Path, task: Task, model: nn.Module, weights: Weights, examples: Examples, *, batch_size: int
) -> tuple[GateRow, ...]:
    """Run the file at ``path`` by ExecuTorch's ``TrainingModule`` and SGD, and compare with PyTorch.

    Args:
        path: of ``write_training_module`` with the other arguments.
        task: as there.
        model: as there.
        weights: as there.
        examples: as there; their values are used.
        batch_size: as there.

    Returns:
        The first loss and gradient; that the same call gives the same bits three times; the weights it starts from; and
        how far 20 steps moved each of them.

    Raises:
        InputError: the file names other weights than the model's trainable ones.
    """
    step = TrainStep(model, task.loss, StepSettings())
    return tuple(_compare(path.read_bytes(), step, TrainState.start(weights, step.settings), examples, batch_size))


def _compare(
    program: bytes, step: TrainStep, start: TrainState, examples: Examples, batch_size: int
) -> Iterator[GateRow]:
    with quiet_export(), quiet_stderr():
        from executorch.extension.training import _load_for_executorch_for_training_from_buffer, get_sgd_optimizer

        # The module reads the program where it lies; as an argument it outlives the module.
        module = _load_for_executorch_for_training_from_buffer(program)
    yield from _compare_first_step(module, step, start, _batch(examples, 0, batch_size))
    with quiet_export():
        optimizer = get_sgd_optimizer(module.named_parameters(), _LEARNING_RATE)
    begin, state = _own_names(module.named_parameters()), start
    for name, error in relative(_doubles(begin), _doubles(start.trainable)).items():
        yield _row("weights", name, error, _WEIGHTS_TOLERANCE)
    for index in range(STEPS):
        batch = _batch(examples, index, batch_size)
        _forward_backward(module, batch)
        optimizer.step(module.named_gradients())
        _, state = step(state, batch.x, batch.y, {"learning_rate": torch.tensor(_LEARNING_RATE)})
    found, expected = moves(_own_names(module.named_parameters()), begin), moves(state.trainable, start.trainable)
    for name, error in relative(found, expected).items():
        yield _row(f"{STEPS} steps", name, error, STEPS_TOLERANCE)


def _compare_first_step(
    module: Any,  # noqa: ANN401 - executorch's
    step: TrainStep,
    start: TrainState,
    batch: Examples,
) -> Iterator[GateRow]:
    (found_loss, found), *repeats = [_forward_backward(module, batch) for _ in range(3)]
    loss, expected, _ = step.gradient(start, batch.x, batch.y)
    if set(found) != set(expected):
        raise InputError(f"the training module trains {sorted(found)}, the model {sorted(expected)}: leave it out")
    yield _row("loss", "loss", float((found_loss - loss).abs() / loss.abs().clamp(min=1e-3)), GRADIENT_TOLERANCE)
    for name, error in relative(_doubles(found), _doubles(expected)).items():
        yield _row(f"gradient, batch {len(batch)}", name, error, GRADIENT_TOLERANCE)
    for name, value in found.items():
        same = all(torch.equal(value, gradients[name]) for _, gradients in repeats)
        yield _row("repeat", name, float(not same), 0.0)


def _row(check: str, tensor: str, error: float, tolerance: float) -> GateRow:
    return GateRow(
        runtime="executorch", check=f"training module: {check}", tensor=tensor, error=error, tolerance=tolerance
    )


def _forward_backward(module: Any, batch: Examples) -> tuple[torch.Tensor, Tensors]:  # noqa: ANN401 - executorch's
    (loss,) = module.forward_backward(_METHOD, (batch.x, batch.y))
    return loss, _own_names(module.named_gradients())


def _own_names(tensors: Tensors) -> Tensors:
    return {name.removeprefix(_PREFIX): value.clone() for name, value in tensors.items()}


def _doubles(tensors: Tensors) -> Tensors:
    return {name: value.double() for name, value in tensors.items()}
