import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet import Bundle
from pocketfleet.device_sim.operator_class import CLASSES, operator_class, operator_classes


@pytest.mark.parametrize(
    ("kind", "name", "flops", "expected"),
    [
        ("matmul", "addmm", 1.0, "matmul"),
        ("convolution", "ConvTranspose", 1.0, "convolution"),
        ("other", "sum", 8.0, "reduction"),
        ("other", "ReduceMean", 8.0, "reduction"),
        ("other", "Where", 0.0, "selection"),
        ("other", "Transpose", 0.0, "copy"),
        ("other", "as_strided_copy", 0.0, "copy"),
        ("other", "Mul", 8.0, "elementwise"),
        ("other", "an operator of tomorrow", 8.0, "elementwise"),
        ("other", "an operator of tomorrow", 0.0, "copy"),
    ],
)
def test_operators_are_told_by_kind_and_name(kind: str, name: str, flops: float, expected: str) -> None:
    assert operator_class(kind, name, flops=flops) == expected


@given(st.sampled_from(["matmul", "convolution", "other"]), st.text(), st.floats(0.0, 1e9))
def test_every_operator_has_a_class(kind: str, name: str, flops: float) -> None:
    assert operator_class(kind, name, flops=flops) in CLASSES


@pytest.mark.parametrize("runtime", ["executorch", "onnx"])
def test_a_real_step_has_products_sums_and_arithmetic(boston_bundle: Bundle, runtime: str) -> None:
    step = boston_bundle.footprint(runtime).train_step  # type: ignore[arg-type]
    found = operator_classes(step)
    assert len(found) == len(step)
    assert {"matmul", "elementwise", "reduction"} <= set(found)
