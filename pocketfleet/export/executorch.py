"""Programs to one ``.pte`` file with three plain methods, and the session that runs it; all we ask of ExecuTorch.

Tried with executorch 1.5.1. Names with a leading underscore that are used: ``EdgeCompileConfig._check_ir_validity``,
``executorch.exir._serialize._program.deserialize_pte_binary``, and of ``executorch.extension.pybindings._C``
``_threadpool_get_thread_count`` and ``_unsafe_reset_threadpool``.

1. Inputs are not part of the planned memory: weights and batch are read where the caller holds them.
2. Outputs are, and are copied out on every call, so that a result outlives the next call.
3. Memory is planned for the largest batch.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule, Node, map_arg

from pocketfleet.export.footprint import Kind, OperatorCost, TensorShape, operator_cost, pair_costs
from pocketfleet.export.layers import layer_of
from pocketfleet.export.program import METHODS, Programs, Signature
from pocketfleet.export.quiet import quiet_export, quiet_stderr
from pocketfleet.export.session import FlatSession

__all__ = ["MINIMUM_VERSION", "ExecutorchSession", "limit_threads", "planned_memory", "write_executorch"]

# The oldest runtime that the programs were tried with.
MINIMUM_VERSION = "1.5.1"


def write_executorch(programs: Programs, path: Path) -> dict[str, tuple[OperatorCost, ...]]:
    """Lower the three methods to ExecuTorch's own operators, without delegates, and write ``path``.

    Returns:
        By method, what the operators in the file cost.
    """
    with quiet_export():
        from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge
        from executorch.exir.passes import MemoryPlanningPass

        # The validity check knows the core operators only; ours are checked by the gate.
        edge = to_edge(dict(programs.graphs), compile_config=EdgeCompileConfig(_check_ir_validity=False))
        planning = MemoryPlanningPass(alloc_graph_input=False, alloc_graph_output=True)
        program = edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=planning))
        path.write_bytes(program.buffer)
    return {
        method: _costs(program.exported_program(method).graph_module, max_batch=programs.max_batch)
        for method in METHODS
    }


def planned_memory(path: Path) -> dict[str, int]:
    """Bytes of the arena that each method of the file at ``path`` needs, outputs included, inputs not."""
    with quiet_export():
        from executorch.exir._serialize._program import deserialize_pte_binary

        plans = deserialize_pte_binary(path.read_bytes()).program.execution_plan
    # The first buffer is a placeholder that the format reserves.
    return {plan.name: sum(plan.non_const_buffer_sizes[1:]) for plan in plans}


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


def _costs(module: GraphModule, *, max_batch: int) -> tuple[OperatorCost, ...]:
    """Costs of a lowered graph, where every operator that computes is an overload with tensor results."""
    nodes = [
        node
        for node in module.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload) and list(_tensors(node.meta.get("val")))
    ]
    names = [node.target.name().partition("::")[2].partition(".")[0] for node in nodes]

    def at(batch: int) -> list[tuple[Kind, int, int]]:
        return [
            operator_cost(
                name,
                [_shape(tensor, batch=batch) for tensor in _inputs(node)],
                [_shape(tensor, batch=batch) for tensor in _tensors(node.meta["val"])],
                transposed=name == "convolution" and bool(node.args[6]),
            )
            for name, node in zip(names, nodes, strict=True)
        ]

    return pair_costs(names, [layer_of(node) for node in nodes], at(1), at(max_batch))


def limit_threads(count: int) -> None:
    """Give ExecuTorch ``count`` threads in this whole process, for one that shares the machine with others.

    Not while some session runs.
    """
    with quiet_export(), quiet_stderr():
        from executorch.extension.pybindings import _C

        _C._unsafe_reset_threadpool(count)


class ExecutorchSession(FlatSession):
    """Runs ``model.pte`` in this process.

    Its methods share one arena; results are copies. Operators run on the runtime's own pool of threads, one for the
    whole process; ``limit_threads`` sets its size.
    """

    def __init__(self, path: Path, signature: Signature, *, max_batch: int) -> None:
        super().__init__(signature, max_batch=max_batch)
        with quiet_export(), quiet_stderr():
            from executorch.extension.pybindings import _C
            from executorch.runtime import Runtime

            # Starts the pool, and with it the report on the processor, here and not at the first step.
            _C._threadpool_get_thread_count()
            # As a buffer: the file may be replaced while the session lives. The methods do not keep the program alive,
            # and a method without its program reads freed memory.
            self._program = Runtime.get().load_program(path.read_bytes())
            self._methods = {name: self._program.load_method(name) for name in METHODS}

    def _run(self, method: str, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        outputs: list[torch.Tensor] = self._methods[method].execute(inputs)
        return outputs
