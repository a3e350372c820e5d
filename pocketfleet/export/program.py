"""A task as three functional programs, traced over the very functions that train eagerly.

1. A program holds no weights: ``train_step`` takes weights, optimizer state, batch and hyper-parameters and returns
   the loss, new weights and new state; ``predict`` and ``evaluate`` take weights too.
2. Inputs and outputs are flat, in the order of the roles below; within a role sorted by name, but ``hyper`` in the
   order of ``StepSettings.hyper_names``, ``metric`` in the order of ``evaluate`` and ``uniform`` (the numbers that
   dropout's masks are made of, ``training.dropout``) in the order of the sites:

   ============  ====================================================================  ============================
   method        inputs                                                                outputs
   ============  ====================================================================  ============================
   train_step    trainable, buffer, slot, frozen, anchor, correction, x, y, hyper,     loss, trainable, buffer, slot
                 uniform
   predict       trainable, buffer, frozen, x                                          output
   evaluate      trainable, buffer, frozen, x, y                                       loss, metric
   ============  ====================================================================  ============================

3. Only the batch is dynamic, from 1 to ``max_batch``; every other dimension is a number.
4. Operators know the module of the model that they come from (``layers``).

Tried with torch 2.13.0: ``torch._subclasses.FakeTensorMode``, ``torch._dynamo.source.ConstantSource``, and
``torch._C._set_mkldnn_enabled`` (``torch.backends.mkldnn.flags`` warns about other hardware).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from pocketfleet.errors import InputError
from pocketfleet.export.layers import OPTIMIZER, label_as, tracked_layers
from pocketfleet.export.untraced import BatchBranchError, untraced_reason
from pocketfleet.training.examples import Examples
from pocketfleet.training.running_module import module_text, running_module
from pocketfleet.training.task import Task
from pocketfleet.training.train_step import Hyper, StepSettings, TrainState, TrainStep, evaluate, predict
from pocketfleet.training.weights import Tensors, Weights

__all__ = [
    "BATCH",
    "METHODS",
    "MethodSignature",
    "Programs",
    "Role",
    "Signature",
    "TensorSpec",
    "plain_operators",
    "trace_programs",
]

# How a dynamic dimension is written in a shape.
BATCH: Literal["batch"] = "batch"
METHODS = ("train_step", "predict", "evaluate")

Role = Literal[
    "trainable",
    "buffer",
    "slot",
    "frozen",
    "anchor",
    "correction",
    "x",
    "y",
    "hyper",
    "uniform",
    "loss",
    "output",
    "metric",
]
# What runs where no module of the model does.
_OUTSIDE = "the loss or a metric"
# Operators to their replacements, as ``make_fx`` takes them.
DecompositionTable = Mapping[Any, Callable[..., Any]]

aten = torch.ops.aten


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output: what it is for, its name within that role, its shape and type.

    ``shape`` holds numbers and at most one ``"batch"``; ``dtype`` is torch's name without the prefix (``"float32"``).
    """

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    role: Role
    name: str
    shape: tuple[int | Literal["batch"], ...]
    dtype: str

    @property
    def label(self) -> str:
        """Its name in a program whose inputs are named: ``trainable/0.weight``, ``x``, ``hyper/learning_rate``."""
        return self.role if self.role == self.name else f"{self.role}/{self.name}"

    def sizes(self, batch: int) -> tuple[int, ...]:
        """The shape at one batch size."""
        return tuple(batch if size == BATCH else int(size) for size in self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSignature:
    """Inputs and outputs of one method, in the order in which it takes and returns them."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def input_names(self, role: Role) -> tuple[str, ...]:
        """Names of the inputs of one role, in order."""
        return tuple(spec.name for spec in self.inputs if spec.role == role)

    def output_names(self, role: Role) -> tuple[str, ...]:
        """Names of the outputs of one role, in order."""
        return tuple(spec.name for spec in self.outputs if spec.role == role)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The signatures of the three methods."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    train_step: MethodSignature
    predict: MethodSignature
    evaluate: MethodSignature

    def method(self, name: str) -> MethodSignature:
        """One method's signature by its name in ``METHODS``."""
        signature: MethodSignature = getattr(self, name)
        return signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """The three exported graphs by method, made with one table of decompositions."""

    graphs: Mapping[str, ExportedProgram]
    signature: Signature
    max_batch: int

    def example_inputs(self, method: str, *, batch: int) -> list[torch.Tensor]:
        """What a method was traced with, contiguous, cut to ``batch`` examples."""
        inputs, _ = self.graphs[method].example_inputs or ((), {})
        specs = self.signature.method(method).inputs
        return [
            (value[:batch] if spec.shape[:1] == (BATCH,) else value).contiguous()
            for spec, value in zip(specs, inputs, strict=True)
        ]

    @property
    def rehearsed_batches(self) -> tuple[int, ...]:
        """The sizes that a program is tried with: the one that it was traced with, and the smallest."""
        return tuple(sorted({self.max_batch, 1}, reverse=True))


@dataclass(frozen=True, slots=True)
class _Method:
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


def _train_method(step: TrainStep, weights: Weights, batch: Examples) -> _Method:
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

    return _Method(call, tuple(specs), _apart(values), output_names)


def _dropout_sites(step: TrainStep, state: TrainState, batch: Examples) -> list[tuple[TensorSpec, torch.Tensor]]:
    """Specs and examples of the numbers that masks are made of.

    A size that differs between two batch sizes is the batch; anything else that depends on it cannot be exported.
    """
    most, fewer = (
        _mask_shapes(step, state, batch),
        _mask_shapes(step, state, _example_batch(batch, batch=len(batch) + 1)),
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


def _predict_method(model: nn.Module, weights: Weights, x: torch.Tensor) -> _Method:
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

    return _Method(call, tuple(specs), _apart(values), lambda: [("output", "output")])


def _evaluate_method(task: Task, model: nn.Module, weights: Weights, batch: Examples) -> _Method:
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

    return _Method(call, tuple(specs), _apart(values), output_names)


def _fake_inputs(method: _Method, *, dynamic: bool) -> tuple[Any, list[torch.Tensor]]:
    """Stand-ins without data for the example inputs, of which only the batch is symbolic."""
    from torch._dynamo.source import ConstantSource
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

    # A task's own constants (class weights, a scale that is no buffer) are real, and are kept in the graph by value.
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    fakes: list[torch.Tensor] = []
    for index, (spec, value) in enumerate(zip(method.inputs, method.example, strict=True)):
        sizes = [DimDynamic.DYNAMIC if dynamic and size == BATCH else DimDynamic.STATIC for size in spec.shape]
        context: Any = StatelessSymbolicContext(dynamic_sizes=sizes, constraint_sizes=[None] * len(sizes))
        fakes.append(mode.from_tensor(value, symbolic_context=context, source=ConstantSource(f"input{index}")))
    return mode, fakes


def _simplify(module: GraphModule) -> None:
    """Take out what costs a copy on a phone and computes nothing: detach, and a transpose of a transpose."""
    for node in list(module.graph.nodes):
        if node.target is aten.detach.default:
            node.replace_all_uses_with(node.args[0])
        elif node.target is aten.t.default:
            (inner,) = node.args
            if isinstance(inner, Node) and inner.target is aten.t.default:
                node.replace_all_uses_with(inner.args[0])
    module.graph.eliminate_dead_code()
    module.recompile()


def _check_guards(
    guards: Sequence[Any], model: nn.Module, changes: Sequence[tuple[int, str | None]], *, max_batch: int
) -> None:
    """Refuse a model's own branch on the batch size: exporting forgets the condition under which it was taken.

    Torch's conditions are passed over; they choose between kernels and memory formats.

    Args:
        guards: torch's, in the order in which they were found.
        model: is traced.
        changes: how many guards there were when which module took over.
        max_batch: the batch that was traced.

    Raises:
        BatchBranchError: some condition does not hold for every batch size.
    """
    library = str(Path(torch.__file__).parent)
    for index, guard in enumerate(guards):
        line = guard.sloc.framework_loc
        if getattr(line, "filename", library).startswith(library):
            continue
        for batch in range(1, max_batch + 1):
            if not bool(guard.expr.subs(dict.fromkeys(guard.expr.free_symbols, batch))):
                path = next((path for count, path in reversed(changes) if count <= index), None)
                where = _OUTSIDE if path is None else module_text(model, path)
                raise BatchBranchError(
                    f"a branch taken for a batch of {max_batch} is not taken for one of {batch}",
                    where=f"{where}, {Path(line.filename).name}:{line.lineno},",
                )


@contextmanager
def plain_operators() -> Iterator[None]:
    """Trace attention and recurrence as products: neither runtime knows torch's fused ones, nor oneDNN's."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def _trace(method: _Method, model: nn.Module, table: DecompositionTable, *, max_batch: int) -> ExportedProgram:
    from torch._dispatch.python import enable_python_dispatcher
    from torch.fx.experimental.proxy_tensor import make_fx

    dynamic = max_batch > 1
    mode, fakes = _fake_inputs(method, dynamic=dynamic)
    changes: list[tuple[int, str | None]] = []
    with (
        running_module(model, on_change=lambda path: changes.append((len(mode.shape_env.guards), path))),
        mode,
        plain_operators(),
        tracked_layers(model),
        enable_python_dispatcher(),
    ):
        module = make_fx(method.call, decomposition_table=dict(table), tracing_mode="real")(*fakes)
    _check_guards(mode.shape_env.guards, model, changes, max_batch=max_batch)
    _simplify(module)
    batch = Dim(BATCH, min=1, max=max_batch) if dynamic else None
    shapes = tuple(
        {place: batch for place, size in enumerate(spec.shape) if size == BATCH} if dynamic else None
        for spec in method.inputs
    )
    return torch.export.export(module, method.example, dynamic_shapes=shapes, strict=False)


def _output_specs(method: _Method, program: ExportedProgram) -> tuple[TensorSpec, ...]:
    output = next(node for node in program.graph.nodes if node.op == "output")
    specs = []
    for (role, name), node in zip(method.output_names(), output.args[0], strict=True):
        value = node.meta["val"]
        shape = tuple(size if isinstance(size, int) else BATCH for size in value.shape)
        specs.append(TensorSpec(role=role, name=name, shape=shape, dtype=str(value.dtype).removeprefix("torch.")))
    return tuple(specs)


def _example_batch(examples: Examples, *, batch: int) -> Examples:
    """``batch`` rows, repeated where there are fewer."""
    return examples.take(torch.arange(batch) % len(examples))


def trace_programs(
    task: Task,
    model: nn.Module,
    weights: Weights,
    *,
    settings: StepSettings,
    examples: Examples,
    max_batch: int,
    table: DecompositionTable,
) -> Programs:
    """Trace and export the three methods.

    Args:
        task: gives the loss and the metrics.
        model: only its structure is read.
        weights: of ``model``; names, shapes and types are read, values are not.
        settings: which terms the step has.
        examples: at least one; only shapes and types are read.
        max_batch: the largest batch that the programs accept.
        table: operators to replace while tracing.

    Raises:
        InputError: the model cannot be traced, or ties itself to one batch size; the message holds torch's reason.
    """
    batch = _example_batch(examples, batch=max_batch)
    make: dict[str, Callable[[], _Method]] = {
        "train_step": lambda: _train_method(TrainStep(model, task.loss, settings), weights, batch),
        "predict": lambda: _predict_method(model, weights, batch.x),
        "evaluate": lambda: _evaluate_method(task, model, weights, batch),
    }
    graphs, signatures = {}, {}
    for name in METHODS:
        # Tracing runs the user's model, loss and metrics, which may raise anything.
        with running_module(model) as running:
            try:
                method = make[name]()
                graphs[name] = _trace(method, model, table, max_batch=max_batch)
            except Exception as exc:
                reason = untraced_reason(exc, where=running.text(outside=_OUTSIDE))
                raise InputError(
                    f"{name} of task {task.name!r} cannot be exported for batches of 1 to {max_batch}: {reason}"
                ) from exc
        signatures[name] = MethodSignature(inputs=method.inputs, outputs=_output_specs(method, graphs[name]))
    return Programs(graphs=graphs, signature=Signature(**signatures), max_batch=max_batch)
