"""The loop in Python: on ONNX Runtime where the bundle has its programs, else on ExecuTorch."""

from pocketfleet.export.signature import TensorSpec
from pocketfleet.export.snippets.inputs import SAFETENSORS, StepInputs
from pocketfleet.export.snippets.template import Syntax, filled, quoted, sizes

__all__ = ["EXECUTORCH_TYPES", "ONNX_TYPES", "python_executorch", "python_onnx"]

EXECUTORCH_TYPES = frozenset(SAFETENSORS)
# What NumPy has.
ONNX_TYPES = EXECUTORCH_TYPES - {"bfloat16"}

_SYNTAX = Syntax(
    declaration="{name} = [", end="]", indent="    ", joined=lambda names: " + ".join(names) if names else "[]"
)


def python_onnx(inputs: StepInputs) -> str:
    """``train.py`` with NumPy and ONNX Runtime."""
    dice = [f"inputs[{quoted(spec.label)}] = dice.random({_tuple(spec, 'n')}, np.float32)" for spec in _dice(inputs)]
    values = {
        "x": _numpy_examples(inputs.x, inputs.max_batch),
        "y": _numpy_examples(inputs.y, inputs.max_batch),
        "uniform": "\n".join(dice),
    }
    return filled("train_onnx.py", _common(inputs) | values, inputs.features)


def python_executorch(inputs: StepInputs) -> str:
    """``train.py`` with ExecuTorch's own Python runtime."""
    dice = ", ".join(f"torch.rand({sizes(spec, 'n')})" for spec in _dice(inputs))
    values = {
        "x": _torch_examples(inputs.x, inputs.max_batch),
        "y": _torch_examples(inputs.y, inputs.max_batch),
        "uniform": f"[{dice}]",
        "dice": ", *dice" if dice else "",
    }
    return filled("train_executorch.py", _common(inputs) | values, inputs.features)


def _common(inputs: StepInputs) -> dict[str, str]:
    hyper = [f"{quoted(label)}: {value!r}," for label, value in inputs.hyper_values]
    return _SYNTAX.lists(inputs) | {"hyper": "\n".join(hyper)}


def _dice(inputs: StepInputs) -> tuple[TensorSpec, ...]:
    return inputs.of_role("uniform")


def _tuple(spec: TensorSpec, batch: str) -> str:
    return f"({sizes(spec, batch)}{',' if len(spec.shape) == 1 else ''})"


def _numpy_examples(spec: TensorSpec, batch: int) -> str:
    shape = _tuple(spec, str(batch))
    if "float" not in spec.dtype:
        return f"np.zeros({shape}, {quoted(spec.dtype)})"
    drawn = f"dice.random({shape}, np.float32)"
    return drawn if spec.dtype == "float32" else f"{drawn}.astype({quoted(spec.dtype)})"


def _torch_examples(spec: TensorSpec, batch: int) -> str:
    make = "rand" if "float" in spec.dtype else "zeros"
    return f"torch.{make}({sizes(spec, str(batch))}, dtype=torch.{spec.dtype})"
