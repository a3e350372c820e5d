"""The loop for Node, on npm's ``onnxruntime-node``."""

from collections.abc import Mapping

from pocketfleet.export.signature import TensorSpec
from pocketfleet.export.snippets.inputs import SAFETENSORS, StepInputs
from pocketfleet.export.snippets.template import Syntax, filled, quoted, sizes, width

__all__ = ["NODE_TYPES", "node"]

# The arrays in which onnxruntime-common's Tensor holds each type; it names types as torch does.
NODE_TYPES: Mapping[str, str] = {
    "float64": "Float64Array",
    "float32": "Float32Array",
    "int64": "BigInt64Array",
    "int32": "Int32Array",
    "int16": "Int16Array",
    "int8": "Int8Array",
    "uint8": "Uint8Array",
    "bool": "Uint8Array",
}

_SYNTAX = Syntax(
    declaration="const {name} = [",
    end="];",
    indent="  ",
    joined=lambda names: f"[{', '.join(f'...{name}' for name in names)}]",
)


def node(inputs: StepInputs) -> str:
    """``train.mjs``."""
    types = [f"{SAFETENSORS[dtype]}: [{quoted(dtype)}, {NODE_TYPES[dtype]}]" for dtype in sorted(inputs.dtypes)]
    hyper = [f"{quoted(label)}: {value!r}," for label, value in inputs.hyper_values]
    dice = [f"inputs[{quoted(spec.label)}] = dice({sizes(spec, 'n')});" for spec in inputs.of_role("uniform")]
    values = {
        "types": f"{{ {', '.join(types)} }}",
        "hyper": "\n".join(hyper),
        "uniform": "\n".join(dice),
        "x": _examples(inputs.x, inputs.max_batch),
        "y": _examples(inputs.y, inputs.max_batch),
    }
    return filled("train.mjs", _SYNTAX.lists(inputs) | values, inputs.features)


def _examples(spec: TensorSpec, batch: int) -> str:
    array, count = NODE_TYPES[spec.dtype], batch * width(spec)
    drawn = f"{array}.from({{ length: {count} }}, Math.random)" if "float" in spec.dtype else f"new {array}({count})"
    return f"new ort.Tensor({quoted(spec.dtype)}, {drawn}, [{sizes(spec, str(batch))}])"
