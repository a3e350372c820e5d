"""Operations and bytes counted by hand for a dense layer, for convolutions and for attention, forward and backward."""

from pathlib import Path

import pytest
import torch
from torch import nn
from toy import drawn

from pocketfleet.export.bundle import Bundle
from pocketfleet.export.exporter import export_bundle
from pocketfleet.export.footprint import Footprint, OperatorCost, TensorShape, operator_cost
from pocketfleet.export.session import Runtime


def floats(*sizes: int) -> TensorShape:
    return TensorShape(sizes, 4)


def flops_by_kind(footprint: Footprint, method: str, *, batch: int) -> dict[str, float]:
    flops = {"matmul": 0.0, "convolution": 0.0, "other": 0.0}
    for operator in footprint.at(method, batch=batch):
        flops[operator.kind] += operator.flops
    return flops


def test_product() -> None:
    # [2, 3] @ [3, 5]: 2 * 2 * 3 * 5 operations; 6 + 15 + 10 values of 4 bytes.
    assert operator_cost("mm", [floats(2, 3), floats(3, 5)], [floats(2, 5)]) == ("matmul", 60, 124)
    # 7 of them.
    assert operator_cost("bmm", [floats(7, 2, 3), floats(7, 3, 5)], [floats(7, 2, 5)]) == ("matmul", 420, 868)
    # Its bias comes first and adds 10 operations.
    assert operator_cost("addmm", [floats(5), floats(2, 3), floats(3, 5)], [floats(2, 5)]) == ("matmul", 70, 144)
    # Its bias comes last; its left factor is given transposed.
    assert operator_cost("Gemm", [floats(3, 2), floats(3, 5), floats(5)], [floats(2, 5)]) == ("matmul", 70, 144)


def test_convolution() -> None:
    # 4 images, 2 to 6 channels in 2 groups, 3 x 3, to 5 x 5 places: every output value takes 1 channel x 9 products.
    x, weight, output = floats(4, 2, 7, 7), floats(6, 1, 3, 3), floats(4, 6, 5, 5)
    assert operator_cost("Conv", [x, weight], [output])[:2] == ("convolution", 2 * 600 * 9)
    assert operator_cost("Conv", [x, weight, floats(6)], [output])[:2] == ("convolution", 2 * 600 * 9 + 600)
    # Back again: every input value, now 600 of them, goes to 1 channel x 9 places.
    back = operator_cost("ConvTranspose", [output, weight], [x])
    assert back[:2] == ("convolution", 2 * 600 * 9)
    assert operator_cost("convolution", [output, weight], [x], transposed=True) == back


def test_copies_compute_nothing() -> None:
    assert operator_cost("permute_copy", [floats(2, 3)], [floats(3, 2)]) == ("other", 0, 48)


def test_a_reduction_reads_every_value() -> None:
    assert operator_cost("sum", [floats(2, 3)], [floats(3)]) == ("other", 6, 36)


@pytest.mark.parametrize("runtime", ["executorch", "onnx"])
@pytest.mark.parametrize("batch", [1, 3, 5])
def test_dense_layer(dense_bundle: Bundle, runtime: str, batch: int) -> None:
    footprint = dense_bundle.footprint(runtime)  # type: ignore[arg-type]
    # 3 to 4: products 2 * batch * 3 * 4, and on ONNX the bias, batch * 4; ExecuTorch adds it by itself.
    bias = 4 if runtime == "onnx" else 0
    forward = (24 + bias) * batch
    # The gradient of the weight is [4, batch] @ [batch, 3]; the input needs none; the bias's is a sum.
    backward = 24 * batch
    assert flops_by_kind(footprint, "predict", batch=batch)["matmul"] == forward
    assert flops_by_kind(footprint, "train_step", batch=batch)["matmul"] == forward + backward
    product = next(operator for operator in footprint.at("predict", batch=batch) if operator.kind == "matmul")
    # weight 12, bias, input 3 and output 4 an example, of 4 bytes each.
    assert product.bytes == 4 * (12 + bias + 7 * batch)


def test_convolutions_on_onnx(normalised_bundle: Bundle) -> None:
    footprint = normalised_bundle.footprint("onnx")
    # First layer: 2 to 4 channels, 3 x 3, 8 x 8 places: 2 * 256 values * 18 + bias 256.
    # Second: 4 to 4 channels in 2 groups, 3 x 3, 2 x 2 places: 2 * 16 values * 18 + bias 16.
    forward = 9216 + 256 + 576 + 16
    assert flops_by_kind(footprint, "predict", batch=1)["convolution"] == forward
    # Gradient of the second's input: 16 values of the output's gradient * 2 channels of a group * 9 places * 2.
    # Of its weight: a convolution that gives 2 x 4 channels of 4 x 4 places, 128 values, of which 3 x 3 are kept (the
    # stride does not divide the image), each of 2 x 2 products.
    # Of the first's weight: 2 x 4 channels of 3 x 3 places, 72 values, each of 8 x 8 products. Its input needs none.
    backward = 2 * 16 * 18 + 2 * 128 * 4 + 2 * 72 * 64
    for batch in (1, 8):
        assert flops_by_kind(footprint, "train_step", batch=batch)["convolution"] == (forward + backward) * batch


def test_convolutions_on_executorch_are_products(normalised_bundle: Bundle) -> None:
    footprint = normalised_bundle.footprint("executorch")
    # As above without biases, and the dense layer of 16 to 4.
    forward = 9216 + 576 + 2 * 16 * 4
    # The dense layer's two gradients; the weight's gradient of the second convolution, without waste; its input's
    # gradient as a convolution of the spread 4 x 4 gradients: 64 values of 2 channels * 9 places; the first's weight.
    backward = 2 * 128 + 576 + 2 * 64 * 18 + 9216
    for batch in (1, 8):
        counted = flops_by_kind(footprint, "train_step", batch=batch)
        assert counted["convolution"] == 0
        assert counted["matmul"] == (forward + backward) * batch


def test_memory_of_a_dense_step(dense_bundle: Bundle) -> None:
    for runtime in ("executorch", "onnx"):
        footprint = dense_bundle.footprint(runtime)  # type: ignore[arg-type]
        # 16 weights; no state; 5 examples of 3 floats and one int64.
        assert (footprint.weights_bytes, footprint.state_bytes, footprint.batch_bytes) == (64, 0, 100)
        planned = footprint.planned_bytes["train_step"]
        # At least the loss and the new weights are alive at the end.
        assert planned >= 68
        assert footprint.training_memory_bytes == planned + 164


def test_counts_between_batches_lie_on_a_line() -> None:
    cost = OperatorCost(name="mm", layer="0", kind="matmul", flops=(10, 50), bytes=(100, 140))
    footprint = Footprint(
        runtime="onnx",
        max_batch=5,
        operators={"train_step": (cost, cost)},
        planned_bytes={"train_step": 0},
        weights_bytes=0,
        state_bytes=0,
        batch_bytes=0,
        file_bytes={},
    )
    assert [(operator.flops, operator.bytes) for operator in footprint.at("train_step", batch=3)] == [(30, 120)] * 2
    assert (footprint.step_flops, footprint.step_bytes) == (100, 280)
    with pytest.raises(ValueError, match="batch must be 1 to 5, got 6"):
        footprint.at("train_step", batch=6)


class _Attention(nn.Module):
    """One head over four places of six values."""

    def __init__(self) -> None:
        super().__init__()
        self.joint, self.out = nn.Linear(6, 18, bias=False), nn.Linear(6, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.joint(x).chunk(3, dim=-1)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        output: torch.Tensor = self.out(mixed.mean(dim=1))
        return output


@pytest.mark.parametrize("runtime", ["onnx", pytest.param("executorch", marks=pytest.mark.long)])
def test_attention(runtime: Runtime, tmp_path: Path) -> None:
    batch_of_3, loss = (drawn(3, 4, 6), torch.arange(3)), nn.CrossEntropyLoss(reduction="none")
    footprint = export_bundle(_Attention(), loss, batch_of_3, out=tmp_path / "bundle", only=runtime).footprint(runtime)
    # An example: 4 places of 6 to 18 values; scores of 4 x 4 places over 6 values; their mixture; 6 to 4 values.
    joint, scores, mixture, out = 2 * 4 * 6 * 18, 2 * 4 * 4 * 6, 2 * 4 * 4 * 6, 2 * 6 * 4
    forward = joint + scores + mixture + out
    # Two gradients of every product, but none of the first one's input.
    backward = 2 * forward - joint
    for batch in (1, 3):
        assert flops_by_kind(footprint, "predict", batch=batch)["matmul"] == forward * batch
        assert flops_by_kind(footprint, "train_step", batch=batch)["matmul"] == (forward + backward) * batch
