"""Alice and Bob: two phones, 13-32-24-16-1, batches of 8, learning rate 1e-3, no momentum, 100 rounds.

The bound in (a) is the test error of the demo that this project grew out of; it trained as (a) does.
"""

from pathlib import Path
from statistics import mean

import numpy as np
import torch

from pocketfleet import Bundle, Experiment, Run, simulate
from pocketfleet.device_sim.client import mean_evaluation
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.export.session import EagerSession
from pocketfleet.training.examples import Examples
from pocketfleet.training.task import check_task, initial_model, load_task
from pocketfleet.training.train_step import StepSettings

ORIGINAL_DEMO_MSE = 40.09
SEEDS = range(10)


def two_phones(seed: int, bundle: Bundle, out: Path, *settings: str) -> Run:
    experiment = Experiment.load(
        "boston-two-phones",
        [
            f"seed={seed}",
            f"task.options.split_seed={seed}",
            f"task.bundle={bundle.path}",
            "rounds.evaluate_every=100",
            *settings,
        ],
    )
    return simulate(experiment, out)


def pooled_mse(seed: int) -> float:
    """100 epochs of plain PyTorch on both phones' examples together: same split, same initial weights."""
    task = load_task("boston", {"split_seed": seed})
    model = initial_model(task, seed=seed)
    data = DeviceData(task, kind="iid", devices=2, seed=seed, alpha=1.0, examples_per_device=0)
    parts = [data.training(device) for device in range(2)]
    pooled = Examples(torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts]))
    model.load_state_dict(data.scaling(model), strict=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    shuffle = torch.Generator().manual_seed(seed)
    for _ in range(100):
        for rows in torch.randperm(len(pooled), generator=shuffle).split(8):
            optimizer.zero_grad()
            task.loss(model(pooled.x[rows]), pooled.y[rows]).mean().backward()
            optimizer.step()
    weights = check_task(task, model, pooled)
    session = EagerSession(task, model, StepSettings())
    return mean_evaluation(session, weights, data.test, batch_size=101)["mse"]


def test_one_batch_a_phone_a_round_beats_the_original_demo(boston_bundle: Bundle, tmp_path: Path) -> None:
    run = two_phones(0, boston_bundle, tmp_path / "run", "training.steps=1")
    assert run.summary["rounds"] == 100
    assert run.summary["device_steps"] == 2 * 100
    assert run.events.query("kind == 'train'")["steps"].unique().tolist() == [1]
    assert run.summary["metrics"]["last"]["test_mse"] < ORIGINAL_DEMO_MSE


def test_one_epoch_a_round_learns_as_well_as_pooled_data(boston_bundle: Bundle, tmp_path: Path, capsys) -> None:
    federated, pooled = [], []
    for seed in SEEDS:
        run = two_phones(seed, boston_bundle, tmp_path / str(seed))
        assert run.summary["rounds"] == 100
        assert sorted(run.devices["name"]) == ["Alice", "Bob"]
        federated.append(run.summary["metrics"]["last"]["test_mse"])
        pooled.append(pooled_mse(seed))
        with capsys.disabled():
            print(f"\nseed {seed}: test MSE {federated[-1]:.2f}, pooled {pooled[-1]:.2f}", end="")
    assert np.isfinite(federated).all()
    assert mean(federated) < 15.0
    assert mean(federated) <= 1.1 * mean(pooled)
