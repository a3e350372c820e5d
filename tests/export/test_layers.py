"""Single layers and losses, each exported for both runtimes through the gate. A sample is run by default."""

from pathlib import Path

import pytest
from families.family import seeded
from families.layers import LAYERS, Layer, layer_batch, layer_loss
from families.losses import LOSSES, LossCase, loss_batch, loss_model
from test_refusals import REFUSALS

from pocketfleet.export import Bundle, export_bundle

MAX_BATCH = 4
# One of each kind whose gradient takes another way.
SAMPLE = {
    *("SiLU", "Hardswish", "PReLU", "MaxPool2d, padded, overlapping", "AvgPool2d, ceil", "Upsample, bilinear"),
    *(
        "RMSNorm",
        "ZeroPad2d",
        "Dropout2d",
        "AdaptiveAvgPool2d, uneven",
        "ConvTranspose2d, grouped",
        "GRU, both directions",
    ),
    *("cross-entropy, label smoothing", "cross-entropy, ignored positions, scalar", "kl divergence"),
}


def _marked(names: dict[str, Layer] | dict[str, LossCase]) -> list[object]:
    return [pytest.param(name, marks=() if name in SAMPLE else pytest.mark.long) for name in names]


def _complete(bundle: Bundle) -> bool:
    return set(bundle.manifest.footprint) == {"executorch", "onnx"}


def test_the_sample_is_there() -> None:
    assert set(LAYERS) | set(LOSSES) >= SAMPLE


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", _marked({name: layer for name, layer in LAYERS.items() if name not in REFUSALS}))
def test_a_layer_exports_and_passes_the_gate(name: str, tmp_path: Path) -> None:
    layer = LAYERS[name]
    model, batch = seeded(layer.make_model), layer_batch(layer, MAX_BATCH)
    assert _complete(export_bundle(model, layer_loss, batch, out=tmp_path / "bundle"))


@pytest.mark.parametrize("name", _marked(LOSSES))
def test_a_loss_exports_and_passes_the_gate(name: str, tmp_path: Path) -> None:
    case = LOSSES[name]
    model, batch = seeded(loss_model), loss_batch(case, MAX_BATCH)
    assert _complete(export_bundle(model, case.loss, batch, out=tmp_path / "bundle"))
