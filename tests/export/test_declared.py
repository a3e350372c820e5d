"""What a program declares is compared with a signature."""

from pathlib import Path

import pytest

from pocketfleet.errors import BundleError
from pocketfleet.export.declared import Declared, check_declared
from pocketfleet.export.signature import TensorSpec

X = TensorSpec(role="x", name="x", shape=("batch", 3), dtype="float32")
PATH = Path("bundle/predict.onnx")


@pytest.mark.parametrize(
    ("found", "batch"),
    [
        (Declared("x", (None, 3), "float32"), None),
        (Declared("x", (8, 3), "float32"), None),
        (Declared(None, (8, 3), "float32"), 8),
    ],
)
def test_what_agrees(found: Declared, batch: int | None) -> None:
    check_declared(PATH, "inputs", [found], [("x", X)], batch=batch)


@pytest.mark.parametrize(
    "found",
    [
        [Declared("y", (None, 3), "float32")],
        [Declared("x", (None, 3), "int64")],
        [Declared("x", (None, 4), "float32")],
        [Declared("x", (None, None), "float32")],
        [Declared("x", (None,), "float32")],
        [Declared("x", (8, 3), "float32")],
        [],
        [Declared("x", (None, 3), "float32"), Declared("x", (None, 3), "float32")],
    ],
)
def test_what_does_not(found: list[Declared]) -> None:
    with pytest.raises(BundleError, match=r"predict\.onnx: number \d of the inputs is .*, the manifest says"):
        check_declared(PATH, "inputs", found, [("x", X)], batch=5)
