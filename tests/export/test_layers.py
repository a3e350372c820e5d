"""Single layers and losses, each exported for both runtimes through the gate.

By default chains of layers are, which hold one of each kind whose gradient takes another way, and two losses.
"""

from pathlib import Path

import pytest
import torch
from families.family import seeded
from families.layers import LAYERS, Layer, layer_batch, layer_loss
from families.losses import LOSSES, loss_batch, loss_model
from test_refusals import REFUSALS
from torch import nn

from pocketfleet.export import Bundle, export_bundle

MAX_BATCH = 4
# Those that are run by default.
LOSS_SAMPLE = {"cross-entropy, ignored positions, scalar", "kl divergence"}


class FirstOf(nn.Module):
    """The first output of a recurrent layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first: torch.Tensor = self.layer(x)[0]
        return first


def features() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.SiLU(), nn.Linear(6, 6), nn.Hardswish(), nn.Linear(6, 6), nn.PReLU())


def normalised_images() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4)),
        *(nn.BatchNorm2d(4), nn.ZeroPad2d((1, 2, 0, 3)), nn.MaxPool2d(3, stride=2, padding=1), nn.Flatten()),
    )


def resized_images() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.Dropout2d(0.3), nn.AvgPool2d(2, ceil_mode=True)),
        *(nn.Upsample(scale_factor=2, mode="bilinear"), nn.AdaptiveAvgPool2d((3, 4))),
        nn.ConvTranspose2d(4, 6, (3, 2), groups=2),
    )


def sequences() -> nn.Module:
    recurrent = FirstOf(nn.GRU(8, 4, bidirectional=True, batch_first=True))
    return nn.Sequential(nn.Linear(5, 8), nn.RMSNorm(8), recurrent)


def attention() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Embedding(9, 4), layer, nn.Linear(4, 3))


CHAINS = {
    "features": Layer(features, (5,)),
    "normalised images": Layer(normalised_images, (2, 7, 9)),
    "resized images": Layer(resized_images, (2, 5, 7)),
    "sequences": Layer(sequences, (2, 5)),
    "attention": Layer(attention, (3,), below=9),
}


def _complete(bundle: Bundle) -> bool:
    return set(bundle.manifest.footprint) == {"executorch", "onnx"}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_exports_and_passes_the_gate(name: str, tmp_path: Path) -> None:
    chain = CHAINS[name]
    model, batch = seeded(chain.make_model), layer_batch(chain, MAX_BATCH)
    assert _complete(export_bundle(model, layer_loss, batch, out=tmp_path / "bundle", convolution="matmul"))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", [name for name in LAYERS if name not in REFUSALS])
def test_a_layer_exports_and_passes_the_gate(name: str, tmp_path: Path) -> None:
    layer = LAYERS[name]
    model, batch = seeded(layer.make_model), layer_batch(layer, MAX_BATCH)
    assert _complete(export_bundle(model, layer_loss, batch, out=tmp_path / "bundle"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in LOSS_SAMPLE else pytest.mark.long) for name in LOSSES]
)
def test_a_loss_exports_and_passes_the_gate(name: str, tmp_path: Path) -> None:
    case = LOSSES[name]
    model, batch = seeded(loss_model), loss_batch(case, MAX_BATCH)
    assert _complete(export_bundle(model, case.loss, batch, out=tmp_path / "bundle"))
