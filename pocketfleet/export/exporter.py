"""From a model or a task to a bundle: plan, write, gate, and only then put in place.

A bundle is written into a hidden folder beside its place (``staging``), gated there, and renamed: a folder with the
bundle's name is a whole bundle that passed its gate.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import nn

from pocketfleet.errors import InputError
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.bundle_writer import write_files
from pocketfleet.export.decompositions import Convolution
from pocketfleet.export.gate import STEPS
from pocketfleet.export.gate_report import require
from pocketfleet.export.manifest import MANIFEST_FILE
from pocketfleet.export.plan import Plan, make_plan
from pocketfleet.export.snippets import write_snippets
from pocketfleet.export.staging import clear_stale, put, staged
from pocketfleet.export.verification import gate_bundle
from pocketfleet.training.adaptation import Adaptation
from pocketfleet.training.model_task import Metrics, ModelTask
from pocketfleet.training.step_settings import Optimizer, chosen_terms
from pocketfleet.training.task import Task
from pocketfleet.training.train_step import Loss, StepSettings
from pocketfleet.training.weights import Weights

__all__ = ["export_bundle", "export_task", "write_bundle"]


def export_bundle(
    model: nn.Module,
    loss: Loss,
    example_batch: tuple[torch.Tensor, torch.Tensor],
    *,
    out: Path | str,
    trainable: str | Sequence[str] = (),
    lora_rank: int = 0,
    optimizer: Optimizer = "sgd",
    learning_rate: float | None = None,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    max_norm: float = 0.0,
    metrics: Metrics | None = None,
    max_batch: int | None = None,
    only: str | None = None,
    int8_predict: bool = False,
    training_module: bool = False,
    convolution: Convolution | None = None,
    snippets: bool = False,
    gate_steps: int = STEPS,
    force: bool = False,
) -> Bundle:
    """Export a model's training, prediction and evaluation for both runtimes, gate them, and put the bundle at ``out``.

    Args:
        model: called as ``model(x)``, returns one tensor; it is not changed.
        loss: ``loss(output, target)``, one loss an example, ``[batch]``, or their mean.
        example_batch: ``(x, y)``, each ``[batch, ...]``; the gate trains on it.
        out: the folder to make; its parent exists.
        trainable: patterns of the parameters to train, such as ``"head.*"``; all that require a gradient if empty.
        lora_rank: train matrices of this rank beside every linear layer, and what ``trainable`` names; 0: no such.
        optimizer: ``"sgd"``, ``"adam"`` or ``"adamw"``.
        learning_rate: the manifest's default: 0.01 for SGD and 0.001 for Adam if left out.
        momentum: SGD's; 0 leaves the term out, as with the strengths that follow.
        nesterov: SGD's; needs momentum.
        weight_decay: added to the gradient, by AdamW taken from the weights.
        max_norm: of the gradient, beyond which it is scaled down.
        metrics: ``metrics(output, target)``, one value an example by name, for ``evaluate``.
        max_batch: the largest batch, for which memory is planned; the example batch's if left out.
        only: ``"executorch"`` or ``"onnx"`` for one runtime alone.
        int8_predict: give ``model.pte`` a method ``predict_int8(x)`` with a quantised copy of the initial weights,
            which never sees trained ones; the manifest holds its accuracy.
        training_module: write ``training_module.pte`` too, for ExecuTorch's own ``TrainingModule`` and batches of
            exactly ``max_batch``.
        convolution: on ExecuTorch ``"matmul"``, as products, or ``"native"``, by the runtime's own kernels, which are
            slower and need less memory; if left out, what is faster on this machine.
        snippets: write ``snippets/`` too, a minimal training loop for this bundle in Python, Node, Kotlin and Swift.
        gate_steps: training steps in which the programs must follow PyTorch.
        force: replace a bundle that is there.

    Raises:
        InputError: the model cannot be exported, an argument is wrong, or ``out`` is there and ``force`` is not set.
        GateError: a program computes something else than PyTorch does.
        Either way nothing is written.
    """
    task = ModelTask(model, loss, example_batch, metrics=metrics)
    settings, hyper = chosen_terms(
        optimizer=optimizer,
        learning_rate=learning_rate,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        max_norm=max_norm,
    )
    patterns = (trainable,) if isinstance(trainable, str) else tuple(trainable)
    return export_task(
        task,
        out=Path(out),
        settings=settings,
        hyper=hyper,
        max_batch=len(task.train_examples()) if max_batch is None else max_batch,
        task_path=None,
        adaptation=Adaptation(trainable=patterns, lora_rank=lora_rank),
        only=only,
        int8_predict=int8_predict,
        training_module=training_module,
        convolution=convolution,
        snippets=snippets,
        gate_steps=gate_steps,
        force=force,
    )


def export_task(
    task: Task,
    *,
    out: Path,
    settings: StepSettings,
    hyper: Mapping[str, float],
    max_batch: int,
    task_path: str | None = None,
    task_options: Mapping[str, JsonValue] | None = None,
    adaptation: Adaptation | None = None,
    weights: Weights | None = None,
    seed: int = 0,
    only: str | None = None,
    int8_predict: bool = False,
    training_module: bool = False,
    convolution: Convolution | None = None,
    snippets: bool = False,
    gate_steps: int = STEPS,
    force: bool = False,
) -> Bundle:
    """The same from a task.

    Args:
        task: what is learnt.
        out: the folder to make; its parent exists.
        settings: which terms the training step has.
        hyper: defaults of the hyper-parameters that ``settings`` wants; others are ignored.
        max_batch: the largest batch; memory on the phone is planned for it.
        task_path: by which ``load_task`` finds the task again, for ``verify``; ``None`` where it cannot.
        task_options: with which ``load_task`` makes the task again.
        adaptation: which weights are trained; as the model says if left out.
        weights: the initial weights; if left out, of a model initialised from ``seed``, its feature scaling set from
            the sums of all training examples.
        seed: of the initial weights.
        only: one runtime alone.
        int8_predict: as in ``export_bundle``.
        training_module: as in ``export_bundle``.
        convolution: as in ``export_bundle``.
        snippets: as in ``export_bundle``.
        gate_steps: training steps in which the programs must follow PyTorch.
        force: replace a bundle that is there.

    Raises:
        InputError: as ``export_bundle``.
        GateError: as ``export_bundle``.
    """
    plan = make_plan(
        task,
        settings=settings,
        hyper=hyper,
        max_batch=max_batch,
        task_path=task_path,
        task_options=task_options,
        adaptation=adaptation,
        weights=weights,
        seed=seed,
        only=only,
        int8_predict=int8_predict,
        training_module=training_module,
        convolution=convolution,
    )
    return write_bundle(plan, out=out, force=force, gated=True, gate_steps=gate_steps, snippets=snippets)


def write_bundle(
    plan: Plan, *, out: Path, force: bool, gated: bool, gate_steps: int = STEPS, snippets: bool = False
) -> Bundle:
    """Write, gate and rename; without the gate only for tests that need a wrong bundle with a right manifest."""
    out = Path(out)
    _check_place(out, force=force)
    with staged(out) as folder:
        written = write_files(folder, plan)
        bundle = Bundle.load(folder)
        if gated:
            require(gate_bundle(bundle, plan.task, plan.model, steps=gate_steps), written.suspects)
        if snippets:
            write_snippets(bundle)
        put(folder, out)
    return Bundle(path=out, manifest=written.manifest)


def _check_place(out: Path, *, force: bool) -> None:
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} is no folder; make it first")
    clear_stale(out)
    if not (out.exists() or out.is_symlink()):
        return
    if not force:
        raise InputError(f"{out} exists; choose another name or use force to replace it")
    if out.is_symlink() or not (out / MANIFEST_FILE).is_file():
        raise InputError(f"{out} exists and is no bundle; it is not replaced, move it away")
