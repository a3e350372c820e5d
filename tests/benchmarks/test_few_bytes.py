import sys
from pathlib import Path

import numpy as np
import pytest

from pocketfleet import Bundle

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from few_bytes import CODECS, compare, mnist_bundle  # noqa: E402


@pytest.mark.long
def test_few_bytes_cost_little(tmp_path: Path) -> None:
    bundle = mnist_bundle(tmp_path / "bundle")
    rows = compare(CODECS, [1], bundle=bundle, folder=tmp_path)
    float32_bytes = 4 * sum(value.numel() for value in Bundle.load(bundle).weights().trainable.values())
    plain = rows["lossless"]
    # Of one seed: twice what the mean over five is held to, and the same for accuracy.
    for name, loss in (("8 bits", 0.04), ("4 bits", 0.10)):
        assert abs(np.log(rows[name].loss / plain.loss)).max() < loss
    few = rows["100 times fewer"]
    assert 100 * few.upload_bytes <= float32_bytes
    assert (plain.accuracy - few.accuracy).max() < 0.02
