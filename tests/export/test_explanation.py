from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pocketfleet.errors import InputError
from pocketfleet.export import Bundle, ModelTask, export_bundle
from pocketfleet.export.explanation import explain_bundle, layer_costs

WIDE = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 4))
BATCH = (torch.linspace(-1, 1, 8 * 20).reshape(8, 20), torch.arange(8) % 4)
TASK = ModelTask(WIDE, nn.CrossEntropyLoss(reduction="none"), BATCH)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("explained") / "bundle"
    return export_bundle(WIDE, lambda o, t: F.cross_entropy(o, t, reduction="none"), BATCH, out=out, only="onnx")


def test_layers_by_their_share(bundle: Bundle) -> None:
    costs = layer_costs(bundle.footprint("onnx"))
    by_layer = {cost.layer: cost for cost in costs}
    # Forward and both gradients of 40 -> 30 at batch 8 are three products; the first layer needs none for its input.
    assert costs[0].layer == "2"
    assert by_layer["2"].flops >= 3 * 2 * 8 * 40 * 30
    assert by_layer["0"].flops >= 2 * 2 * 8 * 20 * 40
    assert sum(cost.flops_ratio for cost in costs) == pytest.approx(1.0)
    assert {"(loss)", "(optimizer)"} <= by_layer.keys()


def test_memory_by_batch(bundle: Bundle) -> None:
    found = dict(explain_bundle(bundle, TASK, runtime="onnx", memory_bytes=10**9).by_batch)
    assert list(found) == [1, 4, 8]
    assert found[8] == bundle.footprint("onnx").training_memory_bytes
    # An example more: its 20 inputs of 4 bytes and its label of 8 at least, and at most all that a layer makes of it.
    for small, large in ((1, 4), (4, 8)):
        assert 20 * 4 + 8 <= (found[large] - found[small]) / (large - small) <= 4 * (20 + 4 * 40 + 4 * 30 + 4 * 4)


def test_what_fits_stays_as_it_is(bundle: Bundle) -> None:
    needed = bundle.footprint("onnx").training_memory_bytes
    found = explain_bundle(bundle, TASK, runtime="onnx", memory_bytes=needed)
    assert (found.fits, found.batch, found.freeze) == (True, (8, needed), None)


def test_a_smaller_batch_and_the_smallest_freeze(bundle: Bundle, tmp_path: Path) -> None:
    needed = bundle.footprint("onnx").training_memory_bytes
    found = explain_bundle(bundle, TASK, runtime="onnx", memory_bytes=needed - 1)
    assert not found.fits
    assert found.batch is not None
    assert found.batch[0] < 8
    assert found.batch[1] < needed
    assert found.freeze is not None
    # The first layer alone is the smallest freeze there is, and it is enough for one byte.
    assert found.freeze.frozen == ("0",)
    assert found.freeze.trainable == ("2.*", "4.*")
    frozen = export_bundle(
        WIDE,
        lambda o, t: F.cross_entropy(o, t, reduction="none"),
        BATCH,
        out=tmp_path / "frozen",
        trainable=found.freeze.trainable,
        only="onnx",
    )
    assert frozen.footprint("onnx").training_memory_bytes == found.freeze.training_memory_bytes


def test_where_nothing_fits(bundle: Bundle) -> None:
    found = explain_bundle(bundle, TASK, runtime="onnx", memory_bytes=1)
    assert (found.fits, found.batch, found.freeze) == (False, None, None)


def test_bad_questions(bundle: Bundle) -> None:
    with pytest.raises(InputError, match=r"^memory must be above 0 bytes, got 0$"):
        explain_bundle(bundle, TASK, runtime="onnx", memory_bytes=0)
    with pytest.raises(InputError, match="was exported for onnx only"):
        explain_bundle(bundle, TASK, runtime="executorch", memory_bytes=1)
