"""Programs to one ``.pte`` file with three methods, and the session that runs it; all we ask of ExecuTorch.

Tried with executorch 1.5.1. Names with a leading underscore that are used: ``EdgeCompileConfig._check_ir_validity``,
``executorch.exir._serialize._program.deserialize_pte_binary``, and of ``executorch.extension.pybindings._C``
``_threadpool_get_thread_count`` and ``_unsafe_reset_threadpool``.

1. Inputs are not part of the planned memory: weights and batch are read where the caller holds them.
2. Outputs are, and are copied out on every call, so that a result outlives the next call.
3. Memory is planned for the largest batch. What a delegate allocates for itself is not part of it, nor is it known
   before the delegate runs.
4. Only ``predict`` is ever delegated, and ``predict_int8`` where it is asked for. A delegated method costs the
   operators that it stands for, as if nothing had been delegated.
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node, map_arg

from pocketfleet.errors import BundleError
from pocketfleet.export import xnnpack
from pocketfleet.export.declared import Declared, check_declared
from pocketfleet.export.executorch_refusal import check_kernels, lowering_refusal, registered_kernels, run_refusal
from pocketfleet.export.footprint import Kind, OperatorCost, TensorShape, operator_cost, pair_costs
from pocketfleet.export.layers import layer_of
from pocketfleet.export.operator_tables import kept_operators, searched_where_found
from pocketfleet.export.program import Programs
from pocketfleet.export.quiet import caught_stderr, quiet_export, quiet_stderr
from pocketfleet.export.session import FlatSession
from pocketfleet.export.signature import METHODS, Signature
from pocketfleet.export.strided_copies import use_strided_copies

__all__ = [
    "INT8_METHOD",
    "MINIMUM_VERSION",
    "ExecutorchSession",
    "Methods",
    "limit_threads",
    "lower",
    "one_thread",
    "planned_memory",
    "predict_is_delegated",
    "try_forward",
    "write_executorch",
]

# The oldest runtime that the programs were tried with.
MINIMUM_VERSION = "1.5.1"
# What a file calls torch's types.
_TYPE_NAMES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
    15: "bfloat16",
}
# A delegated predict has a check of its own.
_REHEARSED = ("train_step", "evaluate")
# The method of a quantised copy of the weights; ``int8_predict.py`` makes it.
INT8_METHOD = "predict_int8"


def write_executorch(
    programs: Programs, path: Path, *, delegate_predict: bool = False, int8: ExportedProgram | None = None
) -> dict[str, tuple[OperatorCost, ...]]:
    """Lower the three methods and write ``path``.

    Args:
        programs: traced for ExecuTorch.
        path: of the file.
        delegate_predict: hand to XNNPACK what it takes of ``predict``; the other methods are ExecuTorch's own operators
            in any case.
        int8: a program of ``int8_predict.quantised_program``, which becomes one more method, ``predict_int8``.

    Returns:
        By method of ``METHODS``, what the operators in the file cost.

    Raises:
        UnsupportedError: the runtime lacks an operator, or its kernel refuses the arguments.
    """
    graphs, partitioners = dict(programs.graphs), {}
    with quiet_export():
        if delegate_predict:
            partitioners["predict"] = [xnnpack.input_weights()]
        if int8 is not None:
            graphs[INT8_METHOD] = int8
            partitioners[INT8_METHOD] = [xnnpack.constant_weights()]
        program = _lowered(graphs, partitioners)
        path.write_bytes(program.buffer)
    check_kernels((program.exported_program(method).graph_module for method in graphs), registered_kernels())
    _rehearse(path, program, programs)
    return {
        method: _costs(program.exported_program(method).graph_module, max_batch=programs.max_batch)
        for method in METHODS
    }


def try_forward(programs: Programs, folder: Path) -> None:
    """Lower and run ``evaluate`` alone, for a model whose training step cannot be lowered.

    Raises:
        Exception: whatever stands in the way.
    """
    with quiet_export():
        program = _lowered({"evaluate": programs.graphs["evaluate"]}, {})
    path = folder / "evaluate.pte"
    path.write_bytes(program.buffer)
    check_kernels([program.exported_program("evaluate").graph_module], registered_kernels())
    _rehearse(path, program, programs, ["evaluate"])


def _lowered(graphs: Mapping[str, ExportedProgram], partitioners: Mapping[str, list[Any]]) -> Any:  # noqa: ANN401 - executorch's own class
    try:
        return lower(graphs, partitioners)
    except Exception as exc:
        refusal = lowering_refusal(exc, graphs)
        if refusal is None:
            raise
        raise refusal from exc


def _rehearse(path: Path, program: Any, programs: Programs, names: Sequence[str] = _REHEARSED) -> None:  # noqa: ANN401 - executorch's own class
    """Run methods once at each batch size: what trains, and what evaluates, as ``predict`` does."""
    methods = Methods(path, names)
    for batch, method in itertools.product(programs.rehearsed_batches, names):
        with caught_stderr() as log:
            failed = _failure(methods, method, programs.example_inputs(method, batch=batch))
        if failed is not None:
            module = program.exported_program(method).graph_module
            raise run_refusal(log.text, module, _calls(path, method), batch=batch) or failed


def _calls(path: Path, method: str) -> list[str | None]:
    """By instruction of a method, the operator that it calls; ``None`` for one that calls none."""
    (plan,) = (plan for plan in _plans(path) if plan.name == method)
    indices = [getattr(instruction.instr_args, "op_index", None) for instruction in plan.chains[0].instructions]
    names = [f"{one.name}.{one.overload}" if one.overload else one.name for one in plan.operators]
    return [None if index is None else names[index] for index in indices]


def _failure(methods: "Methods", method: str, inputs: list[torch.Tensor]) -> RuntimeError | None:
    try:
        methods.run(method, inputs)
    except RuntimeError as exc:
        return exc
    return None


def lower(graphs: Mapping[str, ExportedProgram], partitioners: Mapping[str, list[Any]]) -> Any:  # noqa: ANN401 - executorch's own class
    """Lower methods to ExecuTorch's program, each through the partitioners given for it, if any."""
    with quiet_export(), kept_operators():
        from executorch.exir import EdgeProgramManager, ExecutorchBackendConfig
        from executorch.exir.passes import MemoryPlanningPass

        plain = {name: graph for name, graph in graphs.items() if name not in partitioners}
        lowered = _edge_programs(plain) | _delegated_programs(
            {name: graphs[name] for name in partitioners}, partitioners
        )
        edge = EdgeProgramManager({name: lowered[name] for name in graphs}, compile_config=_compile_config())
        planning = MemoryPlanningPass(alloc_graph_input=False, alloc_graph_output=True)
        return edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=planning))


def _compile_config() -> Any:  # noqa: ANN401 - executorch's own class
    from executorch.exir import EdgeCompileConfig

    # The validity check knows the core operators only; ours are checked by the gate.
    return EdgeCompileConfig(_check_ir_validity=False)


def _edge_programs(graphs: Mapping[str, ExportedProgram]) -> dict[str, Any]:
    """Methods for ExecuTorch's own operators; the way of those that are delegated would decompose each twice."""
    if not graphs:
        return {}
    from executorch.exir import to_edge

    edge = to_edge(dict(graphs), compile_config=_compile_config()).transform([use_strided_copies])
    return {name: edge.exported_program(name) for name in graphs}


def _delegated_programs(graphs: Mapping[str, ExportedProgram], partitioners: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Methods that hand to a delegate what it takes."""
    if not graphs:
        return {}
    from executorch.exir import to_edge_transform_and_lower

    partitioner, config = dict(partitioners), _compile_config()
    with searched_where_found():
        edge = to_edge_transform_and_lower(dict(graphs), partitioner=partitioner, compile_config=config)
    return {name: edge.exported_program(name) for name in graphs}


def _plans(path: Path) -> list[Any]:
    with quiet_export():
        from executorch.exir._serialize._program import deserialize_pte_binary

        plans: list[Any] = deserialize_pte_binary(path.read_bytes()).program.execution_plan
    return plans


def planned_memory(path: Path, *, methods: Collection[str] = METHODS) -> dict[str, int]:
    """Bytes of the arena that each of ``methods`` in the file at ``path`` needs, outputs included, inputs not."""
    # The first buffer is a placeholder that the format reserves.
    return {plan.name: sum(plan.non_const_buffer_sizes[1:]) for plan in _plans(path) if plan.name in methods}


def predict_is_delegated(path: Path) -> bool:
    """Whether ``predict`` of the file at ``path`` hands anything to XNNPACK."""
    return any(
        delegate.id == xnnpack.BACKEND for plan in _plans(path) if plan.name == "predict" for delegate in plan.delegates
    )


def _tensors(value: Any) -> Iterator[torch.Tensor]:  # noqa: ANN401 - what a graph node holds
    for item in value if isinstance(value, tuple | list) else (value,):
        if isinstance(item, torch.Tensor):
            yield item


def _shape(tensor: torch.Tensor, *, batch: int) -> TensorShape:
    return TensorShape(tuple(_size(size, batch=batch) for size in tensor.shape), tensor.element_size())


def _size(size: Any, *, batch: int) -> int:  # noqa: ANN401 - a number or a symbol, which torch types as a number
    if not isinstance(size, torch.SymInt):
        return int(size)
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, batch)))


def _inputs(node: Node) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    map_arg(
        (node.args, {name: value for name, value in node.kwargs.items() if name != "out"}),
        lambda source: found.extend(_tensors(source.meta.get("val"))),
    )
    return found


def _operators(module: GraphModule) -> Iterator[tuple[str, Node]]:
    """Names and nodes of what a lowered graph computes; delegated operators stand where their delegate does."""
    for node in module.graph.nodes:
        if xnnpack.is_delegate_call(node):
            for operator, inner in xnnpack.delegated_operators(module, node):
                yield _name(operator), inner
        elif isinstance(node.target, torch._ops.OpOverload) and list(_tensors(node.meta.get("val"))):
            yield _name(node.target), node


def _name(operator: Any) -> str:  # noqa: ANN401 - an overload
    return str(operator.name()).partition("::")[2].partition(".")[0]


def _costs(module: GraphModule, *, max_batch: int) -> tuple[OperatorCost, ...]:
    """Costs of a lowered graph."""
    operators = list(_operators(module))

    def at(batch: int) -> list[tuple[Kind, int, int]]:
        return [
            operator_cost(
                name,
                [_shape(tensor, batch=batch) for tensor in _inputs(node)],
                [_shape(tensor, batch=batch) for tensor in _tensors(node.meta["val"])],
                transposed=name == "convolution" and bool(node.args[6]),
            )
            for name, node in operators
        ]

    names, layers = [name for name, _ in operators], [layer_of(node) for _, node in operators]
    return pair_costs(names, layers, at(1), at(max_batch))


def limit_threads(count: int) -> None:
    """Give ExecuTorch ``count`` threads in this whole process, for one that shares the machine with others.

    Not while some session runs.
    """
    with quiet_export(), quiet_stderr():
        from executorch.extension.pybindings import _C

        _C._unsafe_reset_threadpool(count)


@contextmanager
def one_thread() -> Iterator[None]:
    """Give ExecuTorch one thread in this whole process, and at the end as many as before.

    Not while some session runs.
    """
    with quiet_export(), quiet_stderr():
        from executorch.extension.pybindings import _C

        before = _C._threadpool_get_thread_count()
    limit_threads(1)
    try:
        yield
    finally:
        limit_threads(before)


def _declared(tensor: Callable[[int], Any], index: int) -> Declared:
    try:
        info = tensor(index)
    except RuntimeError:
        return Declared(None, (), "no tensor")
    return Declared(None, tuple(info.sizes()), _TYPE_NAMES.get(info.dtype(), f"type {info.dtype()}"))


class Methods:
    """Methods of a ``.pte`` file, loaded into this process; they share one arena, and results are copies."""

    def __init__(self, path: Path, names: Collection[str]) -> None:
        with quiet_export(), quiet_stderr():
            from executorch.extension.pybindings import _C
            from executorch.runtime import Runtime

            # Starts the pool, and with it the report on the processor, here and not at the first step.
            _C._threadpool_get_thread_count()
            # As a buffer: the file may be replaced while the methods live. They do not keep the program alive, and a
            # method without its program reads freed memory.
            self._program = Runtime.get().load_program(path.read_bytes())
            self._methods = {name: self._program.load_method(name) for name in names}

    def check(self, path: Path, signature: Signature, *, max_batch: int) -> None:
        """Compare what the file at ``path`` declares with a signature.

        Raises:
            BundleError: they differ.
        """
        for name in self._methods:
            meta, said = self._program.metadata(name), signature.method(name)
            for what, count, tensor, specs in (
                ("inputs", meta.num_inputs(), meta.input_tensor_meta, said.inputs),
                ("outputs", meta.num_outputs(), meta.output_tensor_meta, said.outputs),
            ):
                # A result's size may be a multiple of the batch.
                batch = max_batch if what == "inputs" else None
                found = [_declared(tensor, index) for index in range(count)]
                check_declared(path, f"{what} of {name}", found, [(spec.label, spec) for spec in specs], batch=batch)

    def run(self, method: str, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Execute one method on contiguous tensors."""
        outputs: list[torch.Tensor] = self._methods[method].execute(inputs)
        return outputs


class ExecutorchSession(FlatSession):
    """Runs ``model.pte`` in this process.

    Operators run on the runtime's own pool of threads, one for the whole process; ``limit_threads`` sets its size.
    """

    def __init__(self, path: Path, signature: Signature, *, max_batch: int) -> None:
        super().__init__(signature, max_batch=max_batch)
        try:
            self._methods = Methods(path, METHODS)
        except RuntimeError as exc:
            raise BundleError(
                f"{path} cannot be loaded by this version of ExecuTorch: {(str(exc).splitlines() or [''])[0]}; export "
                "the bundle again"
            ) from exc
        self._methods.check(path, signature, max_batch=max_batch)

    def _run(self, method: str, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        return self._methods.run(method, inputs)
