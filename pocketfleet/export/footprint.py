"""What the operators of a program cost: floating-point operations, bytes moved, memory, file sizes.

Rules of counting, for the operators that a runtime really executes:

1. A product ``[m, k] @ [k, n]`` is ``2 m k n`` operations, an added bias ``m n`` more.
2. A convolution is 2 operations for every output value, input channel of its group and kernel position; a transposed
   one for every input value, output channel of its group and kernel position; an added bias 1 for every output value.
   Where a convolution was taken apart into copies and a product, it counts as a product.
3. Any other arithmetic is 1 operation for every value of its largest input or output; copies and fills are 0.
4. Bytes are those of all inputs and outputs, each once; caches are not modelled.
5. Views that move nothing, and arithmetic on shapes, are left out.

Everything is counted at batch 1 and at the largest batch. Examples meet in sums only, so that counts are linear in the
batch, and any size between lies on the line.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pocketfleet.export.signature import Role, Signature, TensorSpec

__all__ = [
    "Footprint",
    "Kind",
    "Operator",
    "OperatorCost",
    "TensorShape",
    "build_footprint",
    "operator_cost",
    "pair_costs",
]

Kind = Literal["matmul", "convolution", "other"]
Shape = Sequence[int]

_PRODUCTS = {"mm", "bmm", "addmm", "linear", "MatMul", "Gemm"}
_CONVOLUTIONS = {"convolution", "Conv", "ConvTranspose"}
# Operators that only move, fill or look up values.
_MOVES = {
    *(
        "alias_copy",
        "as_strided_copy",
        "cat",
        "clone",
        "constant_pad_nd",
        "copy",
        "detach_copy",
        "empty",
        "expand_copy",
    ),
    *("flip", "full", "full_like", "gather", "index", "index_select", "permute_copy", "repeat", "scalar_tensor"),
    *("scatter", "select_copy", "slice_copy", "split_copy", "split_with_sizes_copy", "squeeze_copy", "stack", "t_copy"),
    *("transpose_copy", "unsqueeze_copy", "view_copy", "where", "zeros", "_clone_dim_order", "_to_dim_order_copy"),
    *("CastLike", "Cast", "Concat", "Constant", "ConstantOfShape", "Expand", "Flatten", "Gather", "GatherElements"),
    *("GatherND", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
}
_ITEM_BYTES = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "bool": 1, "uint8": 1}


@dataclass(frozen=True, slots=True)
class TensorShape:
    """A tensor's sizes and the bytes of one value."""

    sizes: tuple[int, ...]
    item_bytes: int

    @property
    def values(self) -> int:
        """How many values it holds."""
        return math.prod(self.sizes)

    @property
    def bytes(self) -> int:
        """How many bytes it fills."""
        return self.values * self.item_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One executed operator at one batch size."""

    name: str
    kind: Kind
    flops: float
    bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorCost:
    """One executed operator; the pairs are at batch 1 and at the largest batch.

    ``layer`` is the module of the model that it comes from, by its path (``layers`` says how, and of the labels of what
    lies outside the model).
    """

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    name: str
    layer: str
    kind: Kind
    flops: tuple[int, int]
    bytes: tuple[int, int]

    def at(self, share: float) -> Operator:
        """The operator at ``share`` (0 to 1) of the way from batch 1 to the largest batch."""
        return Operator(
            name=self.name,
            kind=self.kind,
            flops=self.flops[0] + share * (self.flops[1] - self.flops[0]),
            bytes=self.bytes[0] + share * (self.bytes[1] - self.bytes[0]),
        )


def _product_flops(name: str, inputs: Sequence[TensorShape], output: TensorShape) -> int:
    # addmm(bias, a, b); every other product starts with its left factor, whose last dimension is contracted. Gemm may
    # contract the first one instead; the product of sizes tells them apart.
    left = inputs[1] if name == "addmm" else inputs[0]
    rows = math.prod(output.sizes[:-1])
    contracted = left.values // rows if rows else 0
    bias = output.values if name == "addmm" or (name in {"Gemm", "linear"} and len(inputs) > 2) else 0
    return 2 * output.values * contracted + bias


def _convolution_flops(name: str, inputs: Sequence[TensorShape], output: TensorShape, *, transposed: bool) -> int:
    x, weight = inputs[0], inputs[1]
    bias = output.values if len(inputs) > 2 else 0
    per_value = math.prod(weight.sizes[1:])
    return 2 * (x.values if transposed or name == "ConvTranspose" else output.values) * per_value + bias


def operator_cost(
    name: str, inputs: Sequence[TensorShape], outputs: Sequence[TensorShape], *, transposed: bool = False
) -> tuple[Kind, int, int]:
    """Kind, operations and bytes of one operator at one batch size.

    Args:
        name: as its runtime calls it, without namespace and overload: ``mm``, ``Gemm``.
        inputs: its tensors, absent ones left out.
        outputs: not empty.
        transposed: whether an ExecuTorch convolution is a transposed one.
    """
    moved = sum(tensor.bytes for tensor in (*inputs, *outputs))
    if name in _PRODUCTS:
        return "matmul", _product_flops(name, inputs, outputs[0]), moved
    if name in _CONVOLUTIONS:
        return "convolution", _convolution_flops(name, inputs, outputs[0], transposed=transposed), moved
    flops = 0 if name in _MOVES else max(tensor.values for tensor in (*inputs, *outputs))
    return "other", flops, moved


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """The costs of a bundle's three methods on one runtime.

    Attributes:
        runtime: ``"executorch"`` or ``"onnx"``.
        max_batch: the largest batch, at which the second of each pair is counted.
        operators: by method, in order of execution.
        planned_bytes: by method, memory for intermediate values and outputs at the largest batch. ExecuTorch: the
            arena that the file asks for. ONNX: the peak of the values alive at once in the file's order, a lower
            bound, since that runtime plans when it loads.
        weights_bytes: trainable weights, buffers and frozen weights, as inputs.
        state_bytes: optimizer slots, anchor and correction, as inputs.
        batch_bytes: one largest batch, as input.
        file_bytes: by file name, the files that this runtime needs.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    runtime: Literal["executorch", "onnx"]
    max_batch: int
    operators: Mapping[str, tuple[OperatorCost, ...]]
    planned_bytes: Mapping[str, int]
    weights_bytes: int
    state_bytes: int
    batch_bytes: int
    file_bytes: Mapping[str, int]

    @property
    def training_memory_bytes(self) -> int:
        """Memory of one training step at the largest batch: arena (gradients and new weights included) and inputs."""
        return self.planned_bytes["train_step"] + self.weights_bytes + self.state_bytes + self.batch_bytes

    @property
    def train_step(self) -> tuple[Operator, ...]:
        """The operators of one training step at the largest batch, in order of execution."""
        return self.at("train_step", batch=self.max_batch)

    @property
    def step_flops(self) -> float:
        """Operations of one training step at the largest batch."""
        return sum(operator.flops for operator in self.train_step)

    @property
    def step_bytes(self) -> float:
        """Bytes that the operators of one training step at the largest batch read and write."""
        return sum(operator.bytes for operator in self.train_step)

    def at(self, method: str, *, batch: int) -> tuple[Operator, ...]:
        """The operators of ``method`` at one batch size, in order of execution.

        Raises:
            ValueError: ``batch`` is not 1 to ``max_batch``.
        """
        if not 1 <= batch <= self.max_batch:
            raise ValueError(f"batch must be 1 to {self.max_batch}, got {batch}")
        share = (batch - 1) / (self.max_batch - 1) if self.max_batch > 1 else 0.0
        return tuple(cost.at(share) for cost in self.operators[method])


def _bytes_of(specs: Sequence[TensorSpec], roles: set[Role], *, batch: int) -> int:
    return sum(math.prod(spec.sizes(batch)) * _ITEM_BYTES[spec.dtype] for spec in specs if spec.role in roles)


def build_footprint(
    runtime: Literal["executorch", "onnx"],
    signature: Signature,
    *,
    max_batch: int,
    operators: Mapping[str, tuple[OperatorCost, ...]],
    planned_bytes: Mapping[str, int],
    file_bytes: Mapping[str, int],
) -> Footprint:
    """Put a runtime's counts together with the sizes of what the signature asks for."""
    inputs = signature.train_step.inputs
    return Footprint(
        runtime=runtime,
        max_batch=max_batch,
        operators=operators,
        planned_bytes=planned_bytes,
        weights_bytes=_bytes_of(inputs, {"trainable", "buffer", "frozen"}, batch=max_batch),
        state_bytes=_bytes_of(inputs, {"slot", "anchor", "correction"}, batch=max_batch),
        batch_bytes=_bytes_of(inputs, {"x", "y"}, batch=max_batch),
        file_bytes=file_bytes,
    )


def pair_costs(
    names: Sequence[str],
    layers: Sequence[str],
    one: Sequence[tuple[Kind, int, int]],
    most: Sequence[tuple[Kind, int, int]],
) -> tuple[OperatorCost, ...]:
    """Operators from their names, their layers, and their costs at batch 1 and at the largest batch."""
    return tuple(
        OperatorCost(name=name, layer=layer, kind=a[0], flops=(a[1], b[1]), bytes=(a[2], b[2]))
        for name, layer, a, b in zip(names, layers, one, most, strict=True)
    )
