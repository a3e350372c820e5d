"""What ONNX cannot do of a program: operators that torch's exporter does not translate, or the runtime does not run.

Tried with torch 2.13.0, whose exporter holds the node that it translates in a variable ``node``, and onnxruntime
1.32.0, whose messages hold the name of a node; ``onnx.py`` makes it ``layer:number``.
"""

import importlib.metadata
import re
import traceback
from collections.abc import Iterator

from torch.fx import Node

from pocketfleet.export.unsupported import Unsupported, UnsupportedError, unsupported

__all__ = ["run_refusal", "translation_refusal"]

# The runtime says that it could not find an implementation for Celu(12) node with name 'layer:12'; or that some status
# was returned while running Conv node. Name:'layer:12' Status Message: and why; or Node (layer:12) Op (Conv) and why.
_NAMED = (
    re.compile(r"(?:for|running) (?P<op>\w+)(?:\(\d+\))? node with name '(?P<name>[^']*)'(?P<why>)"),
    re.compile(r"running (?P<op>\w+) node\. Name:'(?P<name>[^']*)' Status Message: (?P<why>.*)"),
    re.compile(r"Node ?\((?P<name>[^)]*)\) Op \((?P<op>\w+)\) (?P<why>.*)"),
)


def translation_refusal(error: Exception) -> UnsupportedError | None:
    """The operator that torch's exporter could not translate; ``None`` where it was at none."""
    nodes = [node for cause in _causes(error) for node in _nodes(cause)]
    if not nodes:
        return None
    said = (str(list(_causes(error))[-1]).splitlines() or [""])[0][:200]
    # Where nobody has written a translation, the exporter says so at length.
    why = "" if said.startswith("No ONNX function found") else f" ({said})"
    return UnsupportedError([unsupported(nodes[-1])], problem=f"which has no standard ONNX form{why}")


def run_refusal(error: Exception) -> UnsupportedError | None:
    """The operator that the runtime did not load or run; ``None`` where it does not say."""
    named = next((found for pattern in _NAMED if (found := pattern.search(str(error)))), None)
    if not named:
        return None
    version = importlib.metadata.version("onnxruntime")
    problem = f"which ONNX Runtime {version} does not run" + (f" ({named['why'][:200]})" if named["why"] else "")
    layer = named["name"].rpartition(":")[0]
    return UnsupportedError([Unsupported(operator=f"ONNX's {named['op']}", layer=layer)], problem=problem)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _nodes(error: BaseException) -> Iterator[Node]:
    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("node")
        if isinstance(node, Node) and node.op == "call_function":
            yield node
