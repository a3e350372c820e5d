"""Tensors and the bytes that Python's safetensors makes of them: ``cases/tensors.json``, for the Android app's writer.

Run it to write the file anew. Values and files are hexadecimal.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.update import tensors_to_bytes
from pocketfleet.training.weights import Tensors

__all__ = ["FILE", "cases", "text"]

FILE = Path(__file__).parent / "cases" / "tensors.json"
_TYPES = (torch.float64, torch.float32, torch.int64, torch.int32, torch.uint8, torch.bool)


def _drawn(name: str, *shape: int) -> torch.Tensor:
    values = normal(draw_key(7, name), int(np.prod(shape))).astype(np.float32)
    return torch.from_numpy(values).reshape(shape)


def _all() -> dict[str, Tensors]:
    # Python orders names by code points, Kotlin's strings by halves of them: U+FF5E and U+1F600 tell them apart.
    names = [
        "b",
        "a",
        "a.b",
        "a/b",
        "A",
        "",
        'quote"',
        "back\\slash",
        "tab\t",
        "line\n\x01\x1f",
        "\x7f",
        "ü",
        "\uff5e",
        "\U0001f600",
    ]
    return {
        "nothing": {},
        "one scalar": {"x": torch.tensor(1.5)},
        "every type": {f"t{place}": torch.arange(3).to(dtype) for place, dtype in enumerate(_TYPES)},
        "types before names": {"z": torch.tensor([1, 2]), "a": torch.tensor([True]), "m": torch.tensor([0.5])},
        "names of all kinds": {name: torch.tensor([float(place)]) for place, name in enumerate(names)},
        "without values": {"a": torch.zeros(0, 3), "b": torch.zeros(2), "c": torch.zeros(0)},
        "special numbers": {"x": torch.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-45])},
        # Headers of every length modulo 8: the padding.
        **{f"a name of {length}": {"n" * length: torch.tensor([length])} for length in range(1, 9)},
        # Delta, buffers and what an algorithm adds, as devices report them.
        "an update": {
            "0.weight": _drawn("weight", 4, 3),
            "0.bias": _drawn("bias", 4),
            "1.running_mean": _drawn("mean", 4),
            "1.num_batches_tracked": torch.tensor(17),
            "extra/control/0.bias": _drawn("control", 4),
        },
    }


def _case(name: str, tensors: Tensors) -> dict[str, Any]:
    told = [
        {
            "name": key,
            "dtype": str(value.dtype).removeprefix("torch."),
            "shape": list(value.shape),
            "values": value.contiguous().numpy().tobytes().hex(),
        }
        for key, value in tensors.items()
    ]
    return {"name": name, "tensors": told, "file": tensors_to_bytes(tensors).hex()}


def cases() -> list[dict[str, Any]]:
    """All of them."""
    return [_case(name, tensors) for name, tensors in _all().items()]


def text() -> str:
    """The file: a line for each case."""
    return "[\n" + ",\n".join(json.dumps(case) for case in cases()) + "\n]\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
