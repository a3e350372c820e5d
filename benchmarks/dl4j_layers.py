"""How far the packaged DL4J profile is from the published layer timings that it was fitted to.

    git clone https://github.com/PKU-Chengxu/FLASH
    python benchmarks/dl4j_layers.py FLASH

Reads ``models/utils/device_util/regression/<phone>/<layer>.json`` of the clone: 20,000 layers each, with the scales
that ``device_util.py`` divides its sizes by. It fails where a phone's median error over its layers is 10 % or more.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Literal

import numpy as np

from pocketfleet.device_sim.dl4j_layer import Dl4jLayer, layer_seconds

ALLOWED_MEDIAN = 0.10
ROWS = 20_000
PHONES = {"nexus6": "Nexus 6", "redmi_note8": "Redmi Note 8"}
Kind = Literal["dense", "lstm", "embedding"]
# By file, the layer's kind, and what one means of inputs and outputs.
LAYERS: dict[str, tuple[Kind, int, int]] = {
    "output": ("dense", 1_000, 10_000),
    "lstm": ("lstm", 1_000, 1_000),
    "embedding": ("embedding", 10_000, 1_000),
}
# The same of batch and positions.
BATCH, POSITIONS = 50, 10


def layer_errors(path: Path, phone: str, *, kind: Kind, inputs: int, outputs: int) -> np.ndarray:
    """Relative errors of one table."""
    table = json.loads(path.read_text())
    sizes = np.rint(np.array(table["X"]) * (inputs, outputs, BATCH, POSITIONS)).astype(int).tolist()
    measured = np.array(table["Y"], dtype=np.float64).ravel()
    assert len(sizes) == len(measured) == ROWS, f"{path} holds {len(sizes)} rows"
    predicted = [
        layer_seconds(Dl4jLayer(kind=kind, inputs=i, outputs=o, batch=b, positions=p), phone=phone)
        for i, o, b, p in sizes
    ]
    return np.abs(np.array(predicted) / measured - 1.0)


def main() -> None:
    """Print a row a phone and layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path, help="of PKU-Chengxu/FLASH")
    tables = parser.parse_args().clone / "models/utils/device_util/regression"
    met = True
    for folder, phone in PHONES.items():
        errors = {
            kind: layer_errors(tables / folder / f"{file}.json", phone, kind=kind, inputs=inputs, outputs=outputs)
            for file, (kind, inputs, outputs) in LAYERS.items()
        }
        for kind, own in errors.items():
            print(f"{phone}, {kind}: median error {np.median(own):.1%}, p90 {np.percentile(own, 90):.1%}")
        median = float(np.median(np.concatenate(list(errors.values()))))
        met = met and median < ALLOWED_MEDIAN
        print(f"{phone}, all layers: median error {median:.1%} (allowed {ALLOWED_MEDIAN:.0%})")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
