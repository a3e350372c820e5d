"""What few bytes cost a model: LeNet-5 on digits, trained under several codecs by the same phones from the same seeds.

``python benchmarks/few_bytes.py`` prints a row for each codec: bytes of an upload, how many times fewer than float32
values, test loss and accuracy as means over the seeds and over the last five rounds, and how far they are from those
of the same seeds without a codec. All seeds are paired: the same phones train on the same batches.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pocketfleet import Experiment, export_task, simulate
from pocketfleet.training.task import load_task
from pocketfleet.training.train_step import StepSettings

__all__ = ["CODECS", "SETTINGS", "Row", "compare", "mnist_bundle"]

# A hundredth of float32's 246,824 bytes are 2,468. Of 61,706 values 1.44 % are 889: places of two bytes and codes of
# half a one are 2,223, and a step and the header 220 more.
CODECS: Mapping[str, Mapping[str, Any]] = {
    "lossless": {},
    "8 bits": {"name": "quantised", "bits": 8},
    "4 bits": {"name": "quantised", "bits": 4},
    "100 times fewer": {"name": "top_k+quantised", "bits": 4, "ratio": 0.0144, "error_feedback": True},
}
# All phones in every round: with half of them, which half it was moves the loss more than 8 bits do.
SETTINGS: Mapping[str, Any] = {
    "task": {"name": "mnist"},
    "partition": {"kind": "dirichlet", "alpha": 1.0},
    "fleet": {"devices": 20, "availability": "always", "heat": False, "memory_moments": False},
    "training": {"steps": 3, "batch_size": 16, "learning_rate": 0.1, "personalised": False},
    "rounds": {"count": 100, "cohort": 20, "over_selection": 1.0},
    "engine": {"plan": "each", "processes": 1},
}
_LAST_ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Row:
    """Of one codec: means over the last rounds, by seed."""

    upload_bytes: float
    loss: np.ndarray[Any, Any]
    accuracy: np.ndarray[Any, Any]


def mnist_bundle(out: Path) -> Path:
    """LeNet-5's programs, exported once for all runs."""
    export_task(
        load_task("mnist"),
        out=out,
        settings=StepSettings(),
        hyper={"learning_rate": 0.1},
        max_batch=16,
        task_path="mnist",
    )
    return out


def compare(
    codecs: Mapping[str, Mapping[str, Any]], seeds: Sequence[int], *, bundle: Path, folder: Path
) -> dict[str, Row]:
    """Train under each codec from each seed."""
    rows = {}
    for name, codec in codecs.items():
        losses, accuracies, sizes = [], [], []
        for seed in seeds:
            table = {key: dict(value) for key, value in SETTINGS.items()} | {"seed": seed, "codec": dict(codec)}
            table["task"]["bundle"] = str(bundle)
            run = simulate(Experiment.from_table(table), folder / f"{name}-{seed}")
            last = run.rounds.tail(_LAST_ROUNDS)
            losses.append(last["test_loss"].mean())
            accuracies.append(last["test_accuracy"].mean())
            events = run.events
            sizes.append(events[events["kind"] == "upload"]["bytes"].max())
        rows[name] = Row(upload_bytes=float(max(sizes)), loss=np.array(losses), accuracy=np.array(accuracies))
    return rows


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=5)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = mnist_bundle(folder / "bundle")
        began_s = time.process_time()
        rows = compare(CODECS, range(1, given.seeds + 1), bundle=bundle, folder=folder)
        plain = rows["lossless"]
        parameters = sum(value.numel() for value in _weights(bundle).values())
        for codec, row in rows.items():
            times, loss = 4 * parameters / row.upload_bytes, row.loss.mean() / plain.loss.mean() - 1.0
            points = 100.0 * (row.accuracy - plain.accuracy).mean()
            print(
                f"{codec}: {row.upload_bytes:,.0f} bytes, {times:.1f} times fewer; test loss {row.loss.mean():.4f} "
                f"({100 * loss:+.2f} %), accuracy {row.accuracy.mean():.4f} ({points:+.2f} points)"
            )
        print(f"{given.seeds} seeds, {time.process_time() - began_s:.0f} s of one core")


def _weights(bundle: Path) -> Mapping[str, torch.Tensor]:
    from pocketfleet import Bundle

    return Bundle.load(bundle).weights().trainable


if __name__ == "__main__":
    main()
