"""The loop in Swift, on ExecuTorch for Apple's systems."""

from collections.abc import Mapping

from pocketfleet.export.signature import TensorSpec
from pocketfleet.export.snippets.inputs import SAFETENSORS, StepInputs
from pocketfleet.export.snippets.template import Syntax, described, filled, quoted, sizes, width

__all__ = ["SWIFT_TYPES", "swift"]

# Swift's types that are ExecuTorch's ``Scalar``, and the cases of its ``DataType``.
SWIFT_TYPES: Mapping[str, tuple[str, str]] = {
    "float64": ("Double", ".double"),
    "float32": ("Float", ".float"),
    "int64": ("Int64", ".long"),
    "int32": ("Int32", ".int"),
    "int16": ("Int16", ".short"),
    "int8": ("Int8", ".char"),
    "uint8": ("UInt8", ".byte"),
    "bool": ("Bool", ".bool"),
}


def _name(role: str) -> str:
    return f"{role}Labels"


_SYNTAX = Syntax(
    declaration="private let {name} = [",
    end="]",
    indent="  ",
    joined=lambda names: " + ".join(names) if names else "[]",
    name=_name,
)


def swift(inputs: StepInputs) -> str:
    """``Train.swift``."""
    stored = inputs.dtypes_of([*inputs.state, *inputs.read_only])
    types = ", ".join(f"{quoted(SAFETENSORS[dtype])}: {SWIFT_TYPES[dtype][1]}" for dtype in stored)
    hyper = [f"({quoted(label)}, {value!r})," for label, value in inputs.hyper_values]
    dice = [f"AnyTensor.rand(shape: [{sizes(spec, 'n')}], dataType: .float)" for spec in inputs.of_role("uniform")]
    values = {
        "hyper": "\n".join(hyper),
        "x_shape": described(inputs.x),
        "y_shape": described(inputs.y),
        "x_type": SWIFT_TYPES[inputs.x.dtype][0],
        "y_type": SWIFT_TYPES[inputs.y.dtype][0],
        "let": "var" if inputs.of_role("frozen") else "let",
        "examples": f"x.count / {width(inputs.x)}",
        "x": _rows(inputs.x),
        "y": _rows(inputs.y),
        "x_one": _made(inputs.x, f"x[..<{width(inputs.x)}]", "1"),
        "uniform": ", ".join(dice),
        "masks": " + masks" if dice else "",
        "types": f"[{types}]",
    }
    return filled("Train.swift", _SYNTAX.lists(inputs) | values, inputs.features)


def _rows(spec: TensorSpec) -> str:
    """A tensor of the examples from ``start`` to ``end``, which are ``n``."""
    each = width(spec)
    begin, stop = ("start", "end") if each == 1 else (f"start * {each}", f"end * {each}")
    return _made(spec, f"{spec.name}[{begin}..<{stop}]", "n")


def _made(spec: TensorSpec, taken: str, count: str) -> str:
    return f"Tensor<{SWIFT_TYPES[spec.dtype][0]}>(Array({taken}), shape: [{sizes(spec, count)}]).anyTensor"
