"""What cannot be exported says which operator, in which module, on which runtime and what to do; nothing is written.

Every row of docs/export.md, section 8, and of the table of docs/limits.md is exported here as it stands there. A sample
is run by default.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from families.family import seeded
from families.layers import LAYERS, Layer, layer_batch, layer_loss
from torch import nn
from toy import drawn

from pocketfleet.errors import InputError
from pocketfleet.export import export_bundle

DOCS = Path(__file__).parents[2] / "docs"
MAX_BATCH = 4


def refused(out: Path, model: nn.Module, loss: Any, batch: Any, **arguments: Any) -> str:  # noqa: ANN401
    """The message, one paragraph; nothing is left beside it."""
    with pytest.raises(InputError) as raised:
        export_bundle(model, loss, batch, out=out / "bundle", **arguments)
    assert list(out.iterdir()) == []
    message = str(raised.value)
    assert "\n" not in message
    return message


def table_rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading or a line of a page."""
    lines = iter((DOCS / page).read_text().splitlines())
    assert any(line.startswith(heading) for line in lines), heading
    rows: list[list[str]] = []
    for line in lines:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows[2:]


# ---- layers: operators that a runtime lacks


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What stands in the way of a layer.

    Attributes:
        module: as messages name it.
        executorch: the operator that is missing there; ``None`` where the layer exports.
        onnx: the same.
        forward: the runtimes that run it forward.
    """

    module: str
    executorch: str | None = None
    onnx: str | None = None
    forward: tuple[str, ...] = ()


def both(module: str, operator: str, *forward: str) -> Refusal:
    return Refusal(module=module, executorch=operator, onnx=operator, forward=forward)


REFUSALS = {
    "AdaptiveMaxPool1d": both("layer 1 (AdaptiveMaxPool1d)", "aten.adaptive_max_pool2d"),
    "AdaptiveMaxPool2d": both("layer 1 (AdaptiveMaxPool2d)", "aten.adaptive_max_pool2d"),
    "ReplicationPad2d": both("layer 1 (ReplicationPad2d)", "aten.replication_pad2d_backward", "executorch", "onnx"),
    "EmbeddingBag, sum": both("the model itself (EmbeddingBag)", "aten._embedding_bag_backward", "onnx"),
    "EmbeddingBag, mean": both("the model itself (EmbeddingBag)", "aten._embedding_bag_backward", "onnx"),
    "EmbeddingBag, max": both("the model itself (EmbeddingBag)", "aten._embedding_bag_backward", "onnx"),
    "Bilinear": both("layer 1.layer (Bilinear)", "aten._trilinear"),
    "Conv3d": Refusal(module="layer 2 (Conv3d)", executorch="aten.convolution"),
    "Conv3d, grouped": Refusal(module="layer 2 (Conv3d)", executorch="aten.convolution"),
    "ConvTranspose3d": Refusal(module="layer 2 (ConvTranspose3d)", executorch="aten.convolution"),
    "MaxPool3d": Refusal(module="layer 2 (MaxPool3d)", executorch="aten.max_pool3d_with_indices"),
    "AvgPool3d": Refusal(module="layer 2 (AvgPool3d)", executorch="aten.avg_pool3d"),
    "LocalResponseNorm": Refusal(module="layer 1 (LocalResponseNorm)", executorch="aten.avg_pool3d"),
    "CircularPad2d": Refusal(module="layer 1 (CircularPad2d)", executorch="aten.new_empty_strided"),
}
# One of each way in which an operator is found out.
SAMPLE = {
    ("MaxPool3d", "executorch"),  # no kernel
    ("Conv3d", "executorch"),  # a kernel that refuses
    ("EmbeddingBag, sum", "executorch"),  # no form in which it could be lowered
    ("Bilinear", "onnx"),  # no translation
    ("ReplicationPad2d", "onnx"),  # no translation of its gradient
}


def cases() -> Iterator[object]:
    for name, refusal in REFUSALS.items():
        for runtime in ("executorch", "onnx"):
            if getattr(refusal, runtime):
                marks = () if (name, runtime) in SAMPLE else pytest.mark.long
                yield pytest.param(name, runtime, marks=marks, id=f"{name} on {runtime}")


@pytest.mark.parametrize(("name", "runtime"), list(cases()))
def test_a_layer_that_a_runtime_lacks(name: str, runtime: str, tmp_path: Path) -> None:
    layer, refusal = LAYERS[name], REFUSALS[name]
    message = refused(tmp_path, seeded(layer.make_model), layer_loss, layer_batch(layer, MAX_BATCH), only=runtime)
    assert message.startswith(f"the model cannot be exported for {runtime}: ")
    operator = re.escape(getattr(refusal, runtime))
    assert re.search(rf"{re.escape(refusal.module)} uses {operator}\b", message), message
    assert {"executorch": "ExecuTorch 1.", "onnx": "no standard ONNX form"}[runtime] in message
    other = {"executorch": "onnx", "onnx": "executorch"}[runtime]
    assert (f"--only {other}" in message) == (getattr(refusal, other) is None)
    assert ("train only what lies behind it" in message) == (runtime in refusal.forward)
    assert message.endswith("docs/limits.md lists the layers that export")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "Conv3d" else pytest.mark.long)
        for name, refusal in REFUSALS.items()
        if refusal.onnx is None
    ],
)
def test_the_other_runtime_is_a_way_out(name: str, tmp_path: Path) -> None:
    layer = LAYERS[name]
    batch = layer_batch(layer, MAX_BATCH)
    bundle = export_bundle(seeded(layer.make_model), layer_loss, batch, out=tmp_path / "bundle", only="onnx")
    assert bundle.runtimes == ("onnx",)


@pytest.mark.long
def test_training_only_what_lies_behind_is_a_way_out(tmp_path: Path) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReplicationPad2d(1), nn.Conv2d(4, 2, 3))

    batch = layer_batch(Layer(make, (2, 7, 9)), MAX_BATCH)
    bundle = export_bundle(seeded(make), layer_loss, batch, out=tmp_path / "bundle", trainable="2.*")
    assert bundle.runtimes == ("executorch", "onnx")


def test_the_page_of_limits_names_these_layers_and_operators() -> None:
    found = {
        layer: (executorch.strip("`"), onnx.strip("`"))
        for layers, executorch, onnx in table_rows("limits.md", "Not yet")
        for layer in re.findall(r"`(\w+)`", layers)
    }
    assert found == {
        name.partition(",")[0]: (refusal.executorch or "", refusal.onnx or "") for name, refusal in REFUSALS.items()
    }


def test_the_sample_is_there() -> None:
    assert {name for name, _ in SAMPLE} <= REFUSALS.keys() <= LAYERS.keys()


# ---- models: what neither runtime can have


class Doing(nn.Module):
    """Weights, and then what cannot be exported."""

    def __init__(self, then: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.then = then

    def forward(self, x: torch.Tensor) -> Any:  # noqa: ANN401 - whatever is done
        return self.then(self.inner(x))


class TwoInputs(nn.Module):
    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return x * scale


def on_values(x: torch.Tensor) -> torch.Tensor:
    return x if x.sum() > 0 else -x


def taken_out(x: torch.Tensor) -> torch.Tensor:
    return x * float(x.sum().item())


def on_size(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[0] > 2 else x


def by_length(x: torch.Tensor) -> torch.Tensor:
    return x * len(x)


def body(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Tanh(), layer))


def doing(then: Callable[[torch.Tensor], Any]) -> nn.Module:
    return body(Doing(then))


X, Y = drawn(4, 3), drawn(4, 3, seed=1)
HERE = r"layer 1\.1 \(Doing\)"
LINE = rf"train_step of task 'Sequential'.*: {HERE}, test_refusals\.py:\d+,"
BATCH_NORM = r"layer 1\.1 \(BatchNorm1d\).*give batches of two or more, or use GroupNorm or LayerNorm"
# By the first cell of the page's rows: a model, its batch, other arguments, and the facts of the message.
ROWS: dict[str, list[tuple[nn.Module, Any, dict[str, Any], str]]] = {
    "several inputs": [
        (body(TwoInputs()), (X, Y), {}, r"in layer 1\.1 \(TwoInputs\): TypeError.*put several inputs into one tensor"),
        (doing(torch.tanh), ((X, X), Y), {}, "got x = tuple: put several into one tensor, and take it apart"),
        (doing(torch.tanh), (X, X, Y), {}, r"must be a pair \(x, y\) of tensors, got 3 values"),
    ],
    "several outputs": [
        (doing(lambda x: (x, x)), (X, Y), {}, rf"got tuple from {HERE}: wrap it in a module that returns the one"),
        (doing(lambda x: {"x": x}), (X, Y), {}, rf"got dict from {HERE}: wrap it in a module that returns the one"),
    ],
    "a branch on values, or `.item()`": [
        (doing(on_values), (X, Y), {}, rf"{LINE} branches on values.*on either runtime: use torch\.where, or a mask"),
        (doing(taken_out), (X, Y), {}, rf"{LINE} .*by \.item\(\).*on either runtime: use torch\.where, or a mask"),
    ],
    "a branch on the batch size, or `len(x)`": [
        (doing(on_size), (X, Y), {}, rf"{LINE} branches on the batch size.*on either runtime: use x\.shape\[0\]"),
        (doing(by_length), (X, Y), {}, rf"{LINE} branches on the batch size.*in place of len\(x\), and without a bran"),
    ],
    "random draws that are no dropout": [
        (
            doing(lambda x: x + torch.randn_like(x)),
            (X, Y),
            {},
            rf"in {HERE}, the model draws random numbers by aten\.randn_like.*neither runtime.*as part of its examples",
        ),
        (body(nn.RReLU()), (X, Y), {}, r"in layer 1\.1 \(RReLU\), .*by aten\.rrelu_with_noise.*take that layer out"),
    ],
    "one example at a time with batch norm": [
        (body(nn.BatchNorm1d(3)), (X, Y), {"max_batch": 1}, BATCH_NORM),
        (body(nn.BatchNorm1d(3)), (X[:1], Y[:1]), {}, BATCH_NORM),
    ],
    "batch norm with `momentum=None`": [
        (
            body(nn.BatchNorm1d(3, momentum=None)),
            (X, Y),
            {},
            r"layer 1\.1 \(BatchNorm1d\) averages .*momentum=None.*neither runtime.*a number as its momentum, .*0\.1$",
        ),
    ],
    "an operator that a runtime lacks": [
        (
            doing(lambda x: x.cumprod(1)),
            (X, Y),
            {},
            rf"for executorch: {HERE} uses aten\.cumprod, for which ExecuTorch 1\..* has no kernel. Way out: replace",
        ),
        (
            doing(lambda x: x.sort(dim=1)[0]),
            (X, Y),
            {},
            rf"for executorch: {HERE} uses aten\.sort, for which .* has no kernel. Way out: export for onnx alone, whe",
        ),
        (
            doing(lambda x: torch.linalg.solve(torch.eye(3) + x[:, :, None] * x[:, None], x)),
            (X, Y),
            {"only": "onnx"},
            rf"for onnx: {HERE} uses aten\._linalg_solve_ex, which has no standard ONNX form. Way out: replace the lay",
        ),
    ],
}


@pytest.mark.parametrize(
    ("model", "batch", "arguments", "message"),
    [pytest.param(*case, id=f"{row} {number}") for row, found in ROWS.items() for number, case in enumerate(found)],
)
def test_a_row_of_the_page_of_exports(
    model: nn.Module,
    batch: tuple[object, ...],
    arguments: dict[str, Any],
    message: str,
    tmp_path: Path,
) -> None:
    found = refused(tmp_path, model, nn.MSELoss(), batch, **arguments)
    assert re.search(message, found), found


def test_every_row_of_the_page_of_exports_is_exported() -> None:
    assert [row[0] for row in table_rows("export.md", "## 8.")] == list(ROWS)
