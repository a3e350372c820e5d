"""Classes of operators that cost alike: finer than the kinds that a bundle's footprint counts by.

Rules:

1. Products and convolutions are told by the footprint's kind; every other operator by its name, as its runtime calls
   it (``sum`` on ExecuTorch, ``ReduceSum`` in ONNX).
2. A name that is not listed is ``copy`` where nothing is computed, else ``elementwise``.
"""

from collections.abc import Iterable, Mapping

from pocketfleet.export.footprint import Operator

__all__ = ["CLASSES", "operator_class", "operator_classes"]

_NAMES: Mapping[str, str] = {
    "transcendental": "exp log log1p erf gelu tanh sigmoid silu elu pow sqrt rsqrt reciprocal "
    "Exp Log Erf Gelu Tanh Sigmoid HardSigmoid Softplus Elu Pow Sqrt Reciprocal",
    "reduction": "sum mean amax amin max min prod any var argmax argmin cumsum "
    "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceSumSquare ReduceL2 ArgMax ArgMin CumSum",
    "normalisation": "_softmax _log_softmax native_layer_norm native_group_norm native_batch_norm "
    "_native_batch_norm_legit _native_batch_norm_legit_no_training "
    "Softmax LogSoftmax LayerNormalization InstanceNormalization GroupNormalization BatchNormalization",
    "pooling": "max_pool2d_with_indices avg_pool2d avg_pool2d_backward MaxPool AveragePool GlobalAveragePool",
    "selection": "where Where masked_fill",
    "gather": "gather index index_select index_put embedding scatter scatter_add slice_scatter select_scatter "
    "Gather GatherElements GatherND ScatterElements ScatterND",
}
_CLASS_OF: Mapping[str, str] = {name: kind for kind, names in _NAMES.items() for name in names.split()}

CLASSES = ("matmul", "convolution", "elementwise", *_NAMES, "copy")


def operator_class(kind: str, name: str, *, flops: float = 1.0) -> str:
    """The class of an operator.

    Args:
        kind: the footprint's: ``matmul``, ``convolution`` or ``other``.
        name: the runtime's.
        flops: the operations that the footprint counts for it.

    Returns:
        One of ``CLASSES``.
    """
    if kind in {"matmul", "convolution"}:
        return kind
    if name in _CLASS_OF:
        return _CLASS_OF[name]
    return "elementwise" if flops > 0 else "copy"


def operator_classes(operators: Iterable[Operator]) -> tuple[str, ...]:
    """The class of each operator of a program, as ``Footprint.at`` gives them."""
    return tuple(operator_class(one.kind, one.name, flops=one.flops) for one in operators)
