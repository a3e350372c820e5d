"""Alice and Bob in private and in clear, from the same seeds: what secure aggregation costs their model.

``python benchmarks/private_two_phones.py`` prints a row for each seed, the test MSE after the packaged experiments'
rounds, and how far the means are apart; they must be within three per cent.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from pocketfleet import Experiment, export_task, simulate
from pocketfleet.training.task import load_task
from pocketfleet.training.train_step import StepSettings

__all__ = ["boston_bundle", "last_mse"]

_MOST_APART_RATIO = 0.03


def boston_bundle(out: Path) -> Path:
    """The programs of both experiments, exported once for all runs."""
    task = load_task("boston")
    export_task(task, out=out, settings=StepSettings(), hyper={"learning_rate": 0.001}, max_batch=8, task_path="boston")
    return out


def last_mse(experiment: str, seed: int, *, bundle: Path, folder: Path, rounds: int) -> float:
    """Test MSE after the last round."""
    settings = [f"seed={seed}", f"rounds.count={rounds}", f"task.bundle={bundle}"]
    settings += ["engine.plan=each", "training.personalised=false", f"rounds.evaluate_every={rounds}"]
    run = simulate(Experiment.load(experiment, settings), folder / f"{experiment}-{seed}")
    return float(run.summary["metrics"]["last"]["test_mse"])


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=10)
    arguments.add_argument("--rounds", type=int, default=100)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = boston_bundle(folder / "bundle")
        found: dict[str, list[float]] = {"boston-two-phones": [], "boston-two-phones-private": []}
        for seed in range(given.seeds):
            for experiment, values in found.items():
                values.append(last_mse(experiment, seed, bundle=bundle, folder=folder, rounds=given.rounds))
            print(f"seed {seed}: " + ", ".join(f"{key} {values[-1]:.4f}" for key, values in found.items()))
        clear, private = (np.mean(values) for values in found.values())
        print(f"mean of {given.seeds}: {clear:.4f} in clear, {private:.4f} in private: {private / clear - 1.0:+.2%}")
        assert abs(private / clear - 1.0) <= _MOST_APART_RATIO, "the means are further apart than three per cent"


if __name__ == "__main__":
    main()
