"""Which signatures a training step can have (rule 1 of ``signature.py``), for a manifest that may say anything.

1. Shapes and types are ones that a tensor can have; only the first size of ``x``, ``y`` and ``uniform`` and sizes of
   the output are the batch.
2. Inputs of a training step: what its settings ask for beside the trainable weights, in order.
3. Its outputs, and ``predict`` and ``evaluate``, follow from that.
"""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

import torch

from pocketfleet.export.signature import BATCH, METHODS, MethodSignature, Role, Signature, TensorSpec
from pocketfleet.training.train_step import StepSettings, TrainState
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["check_signature_rules", "described"]

# ExecuTorch's own limit.
_DIMENSIONS = 16
_DTYPES = frozenset(
    ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"),
)
_BATCHED = {"x", "y", "uniform"}
_BATCHED_ANYWHERE = {"output"}


def described(spec: TensorSpec | None) -> str:
    """A tensor as messages name it: ``trainable/0.weight float32 [4, 3]``."""
    return f"{spec.label} {spec.dtype} {list(spec.shape)}" if spec else "nothing"


def check_signature_rules(signature: Signature, settings: StepSettings) -> None:
    """Check a signature against the rules.

    Raises:
        ValueError: names the first input or output that cannot be.
    """
    for method in METHODS:
        for spec in (*signature.method(method).inputs, *signature.method(method).outputs):
            _check_tensor(method, spec)
    step = signature.train_step
    _check_sorted(step)
    inputs = list(_step_inputs(step, settings))
    _check_same("train_step.inputs", step.inputs, inputs)
    _check_same("train_step.outputs", step.outputs, list(_step_outputs(step)))
    for method, roles in (("predict", ["x"]), ("evaluate", ["x", "y"])):
        wanted = [spec for role in ("trainable", "buffer", "frozen", *roles) for spec in inputs if spec.role == role]
        _check_same(f"{method}.inputs", signature.method(method).inputs, wanted)
    _check_forward_outputs(signature)


def _check_tensor(method: str, spec: TensorSpec) -> None:
    batched = [place for place, size in enumerate(spec.shape) if size == BATCH]
    if spec.role in _BATCHED_ANYWHERE:
        batched = []
    numbers = [size for size in spec.shape if size != BATCH]
    if (
        spec.dtype not in _DTYPES
        or len(spec.shape) > _DIMENSIONS
        or any(not 0 <= size < 2**31 for size in numbers)
        or (batched and (spec.role not in _BATCHED or batched != [0]))
    ):
        raise ValueError(f"signature.{method}: no tensor of a bundle is {described(spec)[:200]}")


def _check_sorted(step: MethodSignature) -> None:
    for role in ("trainable", "buffer", "frozen"):
        names = step.input_names(role)
        if list(names) != sorted(set(names)):
            raise ValueError(f"signature.train_step.inputs: names of {role} must be in order, each once")
    if not step.input_names("trainable"):
        raise ValueError("signature.train_step.inputs: nothing is trainable")


def _step_inputs(step: MethodSignature, settings: StepSettings) -> Iterator[TensorSpec]:
    """Rule 2, from the weights, the batch and the numbers for masks that a signature has."""
    given = {role: [spec for spec in step.inputs if spec.role == role] for role in ("trainable", "buffer", "frozen")}
    state = TrainState.start(
        Weights(
            trainable=_without_data(given["trainable"]),
            buffers=_without_data(given["buffer"]),
            frozen=_without_data(given["frozen"]),
        ),
        settings,
    )
    yield from given["trainable"]
    yield from given["buffer"]
    yield from _specs("slot", state.optimizer_slots)
    yield from given["frozen"]
    yield from _specs("anchor", state.anchor)
    yield from _specs("correction", state.correction)
    for role in ("x", "y"):
        spec = next((spec for spec in step.inputs if spec.role == role), None)
        if spec is None or spec.name != role or spec.shape[:1] != (BATCH,):
            raise ValueError(f"signature.train_step.inputs: there must be one batch {role}, got {described(spec)}")
        yield spec
    for name in settings.hyper_names:
        yield TensorSpec(role="hyper", name=name, shape=(), dtype="float32")
    for site, spec in enumerate(spec for spec in step.inputs if spec.role == "uniform"):
        yield TensorSpec(role="uniform", name=str(site), shape=spec.shape, dtype="float32")


def _step_outputs(step: MethodSignature) -> Iterator[TensorSpec]:
    loss = next((spec for spec in step.outputs if spec.role == "loss"), None)
    yield TensorSpec(role="loss", name="loss", shape=(), dtype=loss.dtype if loss else "float32")
    yield from (spec for spec in step.inputs if spec.role in {"trainable", "buffer", "slot"})


def _check_forward_outputs(signature: Signature) -> None:
    (output, *more), (loss, *metrics) = (
        signature.method(method).outputs or (None,) for method in ("predict", "evaluate")
    )
    if output is None or more or (output.role, output.name) != ("output", "output"):
        raise ValueError(f"signature.predict.outputs must be one output, got {described(output)} and {len(more)} more")
    if loss is None or (loss.role, loss.name, loss.shape) != ("loss", "loss", ()):
        raise ValueError(f"signature.evaluate.outputs must start with the loss, got {described(loss)}")
    names = [spec.name for spec in metrics if spec is not None and (spec.role, spec.shape) == ("metric", ())]
    if len(set(names)) != len(metrics) or "loss" in names:
        raise ValueError("signature.evaluate.outputs: behind the loss there must be metrics only, each once")


def _without_data(specs: Sequence[TensorSpec]) -> Tensors:
    try:
        return {
            spec.name: torch.empty(spec.sizes(0), dtype=getattr(torch, spec.dtype), device="meta") for spec in specs
        }
    except RuntimeError as exc:
        raise ValueError(f"signature: {(str(exc).splitlines() or [''])[0]}") from exc


def _specs(role: Role, tensors: Tensors) -> Iterator[TensorSpec]:
    for name, value in sorted(tensors.items()):
        dtype = str(value.dtype).removeprefix("torch.")
        yield TensorSpec(role=role, name=name, shape=tuple(value.shape), dtype=dtype)


def _check_same(place: str, found: Sequence[TensorSpec], wanted: Sequence[TensorSpec]) -> None:
    for index, (one, other) in enumerate(zip_longest(found, wanted)):
        if one != other:
            raise ValueError(f"signature.{place}.{index} must be {described(other)}, got {described(one)}")
