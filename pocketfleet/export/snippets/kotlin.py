"""The loop in Kotlin, on ExecuTorch for Android."""

from collections.abc import Mapping
from dataclasses import dataclass

from pocketfleet.export.signature import TensorSpec
from pocketfleet.export.snippets.inputs import SAFETENSORS, StepInputs
from pocketfleet.export.snippets.template import Syntax, described, filled, quoted, sizes, width

__all__ = ["KOTLIN_TYPES", "kotlin"]


@dataclass(frozen=True, slots=True)
class _Type:
    """How ``org.pytorch.executorch.Tensor`` takes and gives one type."""

    array: str
    # The view of a ByteBuffer that fills such an array.
    view: str
    dtype: str
    getter: str
    maker: str = "fromBlob"


# Tensors of other types can be neither made nor read there.
KOTLIN_TYPES: Mapping[str, _Type] = {
    "float64": _Type("DoubleArray", "values.asDoubleBuffer()", "DOUBLE", "dataAsDoubleArray"),
    "float32": _Type("FloatArray", "values.asFloatBuffer()", "FLOAT", "dataAsFloatArray"),
    "int64": _Type("LongArray", "values.asLongBuffer()", "INT64", "dataAsLongArray"),
    "int32": _Type("IntArray", "values.asIntBuffer()", "INT32", "dataAsIntArray"),
    "int8": _Type("ByteArray", "values", "INT8", "dataAsByteArray"),
    "uint8": _Type("ByteArray", "values", "UINT8", "dataAsUnsignedByteArray", "fromBlobUnsigned"),
}


def _quoted(text: str) -> str:
    return quoted(text).replace("$", r"\$")


_SYNTAX = Syntax(
    declaration="private val {name} = listOf(",
    end=")",
    indent="    ",
    joined=lambda names: " + ".join(names) if names else "emptyList<String>()",
    quoted=_quoted,
)


_FROZEN = ' +\n        readSafetensors(File(bundle, "frozen.safetensors"))'


def kotlin(inputs: StepInputs) -> str:
    """``Train.kt``."""
    stored, state = inputs.dtypes_of([*inputs.state, *inputs.read_only]), inputs.dtypes_of(inputs.state)
    hyper = [f"{_quoted(label)} to {value!r}f," for label, value in inputs.hyper_values]
    values = {
        "hyper": "\n".join(hyper),
        "x_shape": described(inputs.x),
        "y_shape": described(inputs.y),
        "x_array": KOTLIN_TYPES[inputs.x.dtype].array,
        "y_array": KOTLIN_TYPES[inputs.y.dtype].array,
        "frozen": _FROZEN if inputs.of_role("frozen") else "",
        "examples": f"x.size / {width(inputs.x)}",
        "x": _rows(inputs.x),
        "y": _rows(inputs.y),
        "x_one": _first_row(inputs.x),
        "uniform": ", ".join(f"dice({sizes(spec, 'n')})" for spec in inputs.of_role("uniform")),
        "masks": " + masks" if inputs.of_role("uniform") else "",
        "copied": _copied(state),
        "types": "\n".join(_read(dtype) for dtype in stored),
    }
    features = inputs.features | ({"several"} if len(state) > 1 else set())
    return filled("Train.kt", _SYNTAX.lists(inputs) | values, features)


def _rows(spec: TensorSpec) -> str:
    """A tensor of the examples from ``start`` to ``end``, which are ``n``."""
    each = width(spec)
    begin, stop = ("start", "end") if each == 1 else (f"start * {each}", f"end * {each}")
    return _made(spec, f"copyOfRange({begin}, {stop})", "n")


def _first_row(spec: TensorSpec) -> str:
    return _made(spec, f"copyOfRange(0, {width(spec)})", "1")


def _made(spec: TensorSpec, taken: str, count: str) -> str:
    return f"Tensor.{KOTLIN_TYPES[spec.dtype].maker}({spec.name}.{taken}, longArrayOf({sizes(spec, count)}))"


def _copied(dtypes: list[str]) -> str:
    def copy(dtype: str) -> str:
        kind = KOTLIN_TYPES[dtype]
        return f"Tensor.{kind.maker}(tensor.{kind.getter}, tensor.shape())"

    first, *others = dtypes
    if not others:
        return copy(first)
    cases = [f"    DType.{KOTLIN_TYPES[dtype].dtype} -> {copy(dtype)}" for dtype in others]
    return "\n".join(["when (tensor.dtype()) {", *cases, f"    else -> {copy(first)}", "}"])


def _read(dtype: str) -> str:
    kind = KOTLIN_TYPES[dtype]
    return f'"{SAFETENSORS[dtype]}" -> Tensor.{kind.maker}({kind.array}(n).also {{ {kind.view}.get(it) }}, shape)'
