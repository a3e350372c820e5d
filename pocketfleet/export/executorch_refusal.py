"""What ExecuTorch cannot do of a program: operators without a kernel, and kernels that refuse their arguments.

1. Before anything runs, the operators of a lowered graph are looked up among the kernels that the runtime registers.
2. Where lowering itself fails, its error names the operator, or else those without a kernel are to blame.
3. Whether a kernel takes its arguments is known only when it runs. The runtime then raises a code; its log names the
   instruction, and the lowered graph knows which module that comes from.

Tried with executorch 1.5.1: ``executorch.extension.pybindings._C._get_operator_names``, the log of a failed
instruction.
"""

import importlib.metadata
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from pocketfleet.export.quiet import quiet_export, quiet_stderr
from pocketfleet.export.unsupported import (
    Unsupported,
    UnsupportedError,
    operator_name,
    unsupported,
    unsupported_nodes,
)

__all__ = ["check_kernels", "lowering_refusal", "registered_kernels", "run_refusal"]

# As the runtime logs it.
_FAILED = re.compile(r"KernelCall failed at instruction \d+:(\d+) in operator (\w+::[\w.]+)")
# What a kernel says about its arguments; the first one is the most precise.
_CHECK = re.compile(r"Check failed \(.*?\): (.+)")
# Where in the runtime a line of its log comes from.
_PLACE = re.compile(r"^.*?\[\S+:\d+\] ")
_MISSING_OUT = re.compile(r"[Mm]issing out variants?: \{(.*)\}")
_OPERATOR = re.compile(r"\w+::\w+")


def _runtime() -> str:
    return f"ExecuTorch {importlib.metadata.version('executorch')}"


def registered_kernels() -> frozenset[str]:
    """Names of the operators that the installed runtime has kernels for, such as ``aten::add.out``."""
    with quiet_export(), quiet_stderr():
        from executorch.extension.pybindings import _C
    return frozenset(_C._get_operator_names())


def check_kernels(methods: Iterable[GraphModule], kernels: Collection[str]) -> None:
    """Look up what lowered graphs call; what a delegate took is its own.

    Raises:
        UnsupportedError: there is no kernel for some operator.
    """
    missing = [unsupported(node) for module in methods for node, name in _operators(module) if name not in kernels]
    if missing:
        raise UnsupportedError(missing, problem=f"for which {_runtime()} has no kernel")


def _operators(module: GraphModule) -> Iterator[tuple[Node, str]]:
    """Nodes that call an operator, with its name as the runtime writes it, in order."""
    for node in module.graph.nodes:
        operator: Any = node.target
        if isinstance(node.target, OpOverload):
            yield node, str(operator.name())


def lowering_refusal(error: Exception, graphs: Mapping[str, ExportedProgram]) -> UnsupportedError | None:
    """The operators that an error of lowering names, or else those without a kernel; ``None`` where there are none."""
    named = _MISSING_OUT.search(str(error))
    names = [operator_name(name) for name in _OPERATOR.findall(named[1])] if named else _without_kernel(graphs)
    if not names:
        return None
    return UnsupportedError(unsupported_nodes(graphs.values(), names), problem=f"for which {_runtime()} has no kernel")


def _without_kernel(graphs: Mapping[str, ExportedProgram]) -> list[str]:
    """Operators that lowering would leave in place, and that there is no kernel for."""
    kernels = {operator_name(name) for name in registered_kernels()}
    taken_apart = torch.export.default_decompositions()
    operators = {node.target for program in graphs.values() for node in program.graph.nodes}
    return sorted(
        name
        for operator in operators
        if isinstance(operator, OpOverload) and operator not in taken_apart and not operator.is_view
        if not {name := operator_name(operator), f"{name}_copy"} & kernels
    )


def run_refusal(log: str, module: GraphModule, calls: Sequence[str | None], *, batch: int) -> UnsupportedError | None:
    """What the runtime's log says about an instruction that failed.

    Args:
        log: of the call.
        module: the lowered graph of the method.
        calls: the operator that each instruction of the method calls, such as ``aten::add.out``, if any.
        batch: the size of the call's.

    Returns:
        ``None`` where the log names no instruction.
    """
    failed = _FAILED.search(log)
    if not failed:
        return None
    reason = _reason(log[: failed.start()])
    problem = f"whose kernel in {_runtime()} refuses its arguments at a batch of {batch}"
    if reason:
        problem += f" ({reason})"
    operator = failed[2]
    # A node makes one call, in the order of the graph.
    before = calls[: int(failed[1])].count(operator)
    nodes = [node for node, name in _operators(module) if name == operator]
    found = [unsupported(node) for node in nodes[before : before + 1]] or [
        Unsupported(operator=operator_name(operator), layer=None)
    ]
    return UnsupportedError(found, problem=problem)


def _reason(log: str) -> str:
    """What the log says up to a failure: a check's words, else the last line, of those with words if there are any."""
    check = _CHECK.search(log)
    if check:
        return check[1].strip().rstrip(".")
    # The last piece is the beginning of the line that tells of the failure.
    lines = [line for piece in log.split("\n")[:-1] if (line := _PLACE.sub("", piece).strip())]
    worded = [line for line in lines if not line.startswith("Check failed")]
    return ["", *lines[-1:], *worded[-1:]][-1].rstrip(".")
