"""What XNNPACK takes over of a method, and the operators inside what it took; all we ask of this delegate.

Tried with executorch 1.5.1. Names with a leading underscore that are used:
``executorch.exir.dialects.edge._ops.EdgeOpOverload`` and its ``_op``.

1. Where weights are inputs it takes matrix products, activations, arithmetic and copies: its fully connected operator
   reads weights and bias anew on every call. A convolution with weights as inputs it refuses, so that the products
   into which ours are taken apart go to it, and the copies between them (``as_strided_copy``) and max-pools do not.
2. Where weights are constants it takes convolutions and pools too.
3. It never takes a method that returns new weights: a training step stays with ExecuTorch's own operators.
"""

from collections.abc import Iterator
from typing import Any

from torch.fx import GraphModule, Node

__all__ = ["BACKEND", "constant_weights", "delegated_operators", "input_weights", "is_delegate_call"]

# What a file calls the delegate.
BACKEND = "XnnpackBackend"
# Inside the delegate a view is an edge operator like any other; outside it is none, and is not counted.
_VIEWS = {"view_copy", "squeeze_copy", "unsqueeze_copy"}


def input_weights() -> Any:  # noqa: ANN401 - a partitioner of executorch's
    """The partitioner for a method whose weights are inputs."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    # Without the flag a product is taken only if its weight is a constant of the program.
    return XnnpackPartitioner(force_non_static_weights_for_f32_linear=True)


def constant_weights() -> Any:  # noqa: ANN401 - a partitioner of executorch's
    """The partitioner for a method that holds its weights."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    return XnnpackPartitioner()


def is_delegate_call(node: Node) -> bool:
    """Whether a node of a lowered graph hands work to a delegate."""
    from executorch.exir.delegate import executorch_call_delegate

    return node.target is executorch_call_delegate


def delegated_operators(module: GraphModule, call: Node) -> Iterator[tuple[Any, Node]]:
    """Torch's operators that a delegate call stands for, in order, each with its node; views are left out."""
    from executorch.exir.dialects.edge._ops import EdgeOpOverload

    source = call.args[0]
    assert isinstance(source, Node)
    lowered: Any = getattr(module, str(source.target))
    for node in lowered.original_module.graph.nodes:
        if isinstance(node.target, EdgeOpOverload):
            operator: Any = node.target._op
            if operator.name().partition("::")[2].partition(".")[0] not in _VIEWS:
                yield operator, node
