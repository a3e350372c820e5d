import re

import pytest
import torch
from updates import lenet_update, squared

from pocketfleet.errors import InputError
from pocketfleet.training.codec import DownloadCodec
from pocketfleet.training.update import UpdateError, tensors_to_bytes
from pocketfleet.training.weights import Weights

WEIGHTS = Weights(trainable=lenet_update().delta, buffers={"bn": torch.tensor([0.1, 3.0])}, frozen={})
NAMES = frozenset(WEIGHTS.trainable) - {"fc3.bias"} | {"bn"}


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_weights_are_rounded_to_the_nearest_and_buffers_kept(bits: int) -> None:
    codec = DownloadCodec(NAMES, bits=bits)
    data = codec.encode(WEIGHTS)
    assert len(data) == codec.encoded_bytes(WEIGHTS)
    assert len(data) < 61_706 * bits / 8 + 700
    found = codec.decode(data, WEIGHTS)
    assert found.buffers["bn"].tolist() == WEIGHTS.buffers["bn"].tolist()
    # It does not travel, and is what it was.
    assert found.trainable["fc3.bias"] is WEIGHTS.trainable["fc3.bias"]
    step = float(WEIGHTS.trainable["conv1.bias"].abs().max()) / (2 ** (bits - 1) - 1)
    assert float((found.trainable["conv1.bias"] - WEIGHTS.trainable["conv1.bias"]).abs().max()) <= step / 2 * 1.001
    assert squared(found.trainable, WEIGHTS.trainable) > 0
    seen = codec.seen(WEIGHTS)
    assert squared(seen.trainable, found.trainable) == 0
    # What was rounded stays where it is.
    assert squared(codec.seen(seen).trainable, seen.trainable) < 1e-9


def test_with_all_bits_a_version_is_its_tensors() -> None:
    codec = DownloadCodec(NAMES)
    wanted = {name: value for name, value in (WEIGHTS.trainable | WEIGHTS.buffers).items() if name in NAMES}
    assert codec.encode(WEIGHTS) == tensors_to_bytes(wanted)
    assert codec.seen(WEIGHTS) is WEIGHTS
    assert codec.encoded_bytes(WEIGHTS) == len(codec.encode(WEIGHTS))
    assert squared(codec.decode(codec.encode(WEIGHTS), WEIGHTS).trainable, WEIGHTS.trainable) == 0


def test_other_bytes_and_other_types_are_refused() -> None:
    with pytest.raises(UpdateError, match=re.escape("has an unknown tensor 'conv1.bias'")):
        DownloadCodec(NAMES, bits=8).decode(DownloadCodec(NAMES).encode(WEIGHTS), WEIGHTS)
    wide = Weights(trainable={"w": torch.zeros(1, dtype=torch.float64)}, buffers={}, frozen={})
    DownloadCodec(frozenset({"w"})).check(wide)
    with pytest.raises(InputError, match=re.escape("codec.download_bits to 0")):
        DownloadCodec(frozenset({"w"}), bits=8).check(wide)
