"""A task as three functional programs, traced over the very functions that train eagerly.

1. A program holds no weights: ``train_step`` takes weights, optimizer state, batch and hyper-parameters and returns
   the loss, new weights and new state; ``predict`` and ``evaluate`` take weights too.
2. Inputs and outputs are flat, in the order of ``signature``.
3. Only the batch is dynamic, from 1 to ``max_batch``; every other dimension is a number.
4. Operators know the module of the model that they come from (``layers``).

Tried with torch 2.13.0: ``torch._subclasses.FakeTensorMode``, ``torch._dynamo.source.ConstantSource``, and
``torch._C._set_mkldnn_enabled`` (``torch.backends.mkldnn.flags`` warns about other hardware).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from pocketfleet.errors import InputError
from pocketfleet.export.flat_method import FlatMethod, evaluate_method, example_batch, predict_method, train_method
from pocketfleet.export.layers import tracked_layers
from pocketfleet.export.operator_tables import kept_operators
from pocketfleet.export.signature import BATCH, METHODS, MethodSignature, Signature, TensorSpec
from pocketfleet.export.untraced import OUTSIDE, BatchBranchError, untraced_reason
from pocketfleet.training.examples import Examples
from pocketfleet.training.running_module import module_text, running_module
from pocketfleet.training.task import Task
from pocketfleet.training.train_step import StepSettings, TrainStep
from pocketfleet.training.weights import Weights

__all__ = [
    "Programs",
    "plain_operators",
    "trace_programs",
]

# Operators to their replacements, as ``make_fx`` takes them.
DecompositionTable = Mapping[Any, Callable[..., Any]]

aten = torch.ops.aten


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


def _fake_inputs(method: FlatMethod, *, dynamic: bool) -> tuple[Any, list[torch.Tensor]]:
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
                where = OUTSIDE if path is None else module_text(model, path)
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


def _trace(method: FlatMethod, model: nn.Module, table: DecompositionTable, *, max_batch: int) -> ExportedProgram:
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
    with kept_operators():
        return torch.export.export(module, method.example, dynamic_shapes=shapes, strict=False)


def _output_specs(method: FlatMethod, program: ExportedProgram) -> tuple[TensorSpec, ...]:
    output = next(node for node in program.graph.nodes if node.op == "output")
    specs = []
    for (role, name), node in zip(method.output_names(), output.args[0], strict=True):
        value = node.meta["val"]
        shape = tuple(size if isinstance(size, int) else BATCH for size in value.shape)
        specs.append(TensorSpec(role=role, name=name, shape=shape, dtype=str(value.dtype).removeprefix("torch.")))
    return tuple(specs)


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
    batch = example_batch(examples, batch=max_batch)
    make: dict[str, Callable[[], FlatMethod]] = {
        "train_step": lambda: train_method(TrainStep(model, task.loss, settings), weights, batch),
        "predict": lambda: predict_method(model, weights, batch.x),
        "evaluate": lambda: evaluate_method(task, model, weights, batch),
    }
    graphs, signatures = {}, {}
    for name in METHODS:
        # Tracing runs the user's model, loss and metrics, which may raise anything.
        with running_module(model) as running:
            try:
                method = make[name]()
                graphs[name] = _trace(method, model, table, max_batch=max_batch)
            except Exception as exc:
                reason = untraced_reason(exc, model, running)
                raise InputError(
                    f"{name} of task {task.name!r} cannot be exported for batches of 1 to {max_batch}: {reason}"
                ) from exc
        signatures[name] = MethodSignature(inputs=method.inputs, outputs=_output_specs(method, graphs[name]))
    return Programs(graphs=graphs, signature=Signature(**signatures), max_batch=max_batch)
