"""Makes the workloads: populations drawn from keyed dice, and the rounds as pocketfleet's own fleet plays them.

The fleet is run once by the clock alone, which says who trains in which round; the order of a device's examples then
follows from its assignment's ``batch_seed``. Peers are given both, row by row.
"""

import dataclasses
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from learner import make_model
from ours import experiment_of, trained
from workload import Workload

from pocketfleet import simulate
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.training.batches import batch_indices
from pocketfleet.training.draws import draw_key, normal, numbers
from pocketfleet.training.partition import held_out_split
from pocketfleet.training.task import load_task

__all__ = ["WORKLOADS", "Plan", "make_workload", "small"]

SEED = 1
TESTS = 1_000
# Assumed: noise of the targets, so that no model fits them wholly.
NOISE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A workload's size: ``cohort`` devices of ``devices`` a round, ``steps`` steps each."""

    name: str
    title: str
    model: str
    devices: int
    cohort: int
    rounds: int
    steps: int
    batch_size: int
    learning_rate: float

    @property
    def examples(self) -> int:
        """That a device holds: one in five is held out, the rest is one pass."""
        return self.steps * self.batch_size * 5 // 4


def small(plan: Plan) -> Plan:
    """The same in little: whether all runs and agrees, not how fast."""
    return dataclasses.replace(plan, devices=20, cohort=min(plan.cohort, 10), rounds=2)


WORKLOADS = {
    plan.name: plan
    for plan in (
        Plan(
            name="mlp",
            title="MLP 13-64-32-1, 1,000 devices, all of them a round, 10 steps of batch 16",
            model="mlp",
            devices=1_000,
            cohort=1_000,
            rounds=10,
            steps=10,
            batch_size=16,
            learning_rate=0.1,
        ),
        Plan(
            name="mlp-100",
            title="MLP 13-64-32-1, 1,000 devices, 100 a round, 10 steps of batch 16",
            model="mlp",
            devices=1_000,
            cohort=100,
            rounds=10,
            steps=10,
            batch_size=16,
            learning_rate=0.1,
        ),
        Plan(
            name="lenet",
            title="LeNet-5 on handwritten digits, 200 devices, all of them a round, 10 steps of batch 16",
            model="lenet",
            devices=200,
            cohort=200,
            rounds=3,
            steps=10,
            batch_size=16,
            learning_rate=0.05,
        ),
        # The task LR_MNIST of FLUTE's README (microsoft/msrflute@0e8762b): 1,000 clients, 10 a round, batch 10, SGD at
        # 0.03, 1 epoch, 100 rounds; 60 examples a client are MNIST's 60,000 over 1,000. Here they are synthetic.
        Plan(
            name="logistic",
            title="Logistic regression 784-10, 1,000 devices of 60 synthetic examples, 10 a round, 6 steps of batch 10",
            model="logistic",
            devices=1_000,
            cohort=10,
            rounds=100,
            steps=6,
            batch_size=10,
            learning_rate=0.03,
        ),
    )
}


def make_workload(plan: Plan, folder: Path) -> Workload:
    """Draw the population, let the clock say who trains when, write both to ``folder``."""
    x, y, test_x, test_y = (_digits if plan.model == "lenet" else _drawn)(plan)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)  # noqa: TID251 - weights that no task draws
        weights = {name: value.numpy() for name, value in make_model(plan.model).state_dict().items()}
    taken = np.stack(
        [held_out_split(np.arange(plan.examples), seed=SEED, device=device)[0] for device in range(plan.devices)]
    )
    none = np.empty((0, plan.cohort), dtype=np.int64)
    workload = Workload(
        name=plan.name,
        title=plan.title,
        model=plan.model,
        learning_rate=plan.learning_rate,
        batch_size=plan.batch_size,
        steps=plan.steps,
        seed=SEED,
        weights=weights,
        x=x,
        y=y,
        test_x=test_x,
        test_y=test_y,
        training_rows=taken,
        cohorts=none,
        orders=none[..., np.newaxis],
    )
    workload.save(folder)
    _check_training_rows(workload, folder)
    cohorts = _cohorts(plan, folder)
    workload = dataclasses.replace(workload, cohorts=cohorts, orders=_orders(plan, cohorts))
    workload.save(folder)
    return workload


def _drawn(
    plan: Plan,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.generic], npt.NDArray[np.float32], npt.NDArray[np.generic]]:
    """Standard normal inputs; targets of a linear teacher with noise: its value, or its likeliest class."""
    features, outputs = (13, 1) if plan.model == "mlp" else (784, 10)
    rows = np.arange(plan.devices * plan.examples + TESTS)
    x = normal(draw_key(SEED, "peer_inputs", rows), features).astype(np.float32)
    teacher = normal(draw_key(SEED, "peer_teacher", np.arange(features)), outputs) / np.sqrt(features)
    value = x @ teacher + NOISE * normal(draw_key(SEED, "peer_noise", rows), outputs)
    y = value.astype(np.float32) if plan.model == "mlp" else value.argmax(axis=1)
    held = plan.devices * plan.examples
    return (
        x[:held].reshape(plan.devices, plan.examples, *x.shape[1:]),
        y[:held].reshape(plan.devices, plan.examples, *y.shape[1:]),
        x[held:],
        y[held:],
    )


def _digits(
    plan: Plan,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.generic], npt.NDArray[np.float32], npt.NDArray[np.generic]]:
    """The digits of the packaged task, drawn for each device with replacement, IID."""
    task = load_task("mnist")
    train, test = task.train_examples(), task.test_examples()
    draws = numbers(draw_key(SEED, "peer_digits", np.arange(plan.devices)), plan.examples)
    rows = torch.from_numpy((draws % np.uint64(len(train.x))).astype(np.int64))
    return train.x[rows].numpy(), train.y[rows].numpy(), test.x.numpy(), test.y.numpy()


def _check_training_rows(workload: Workload, folder: Path) -> None:
    """The rows laid down for peers are those that pocketfleet's devices train on."""
    task = load_task("population_task:make_task", {"folder": str(folder)})
    data = DeviceData(task, kind="natural", devices=workload.devices, seed=SEED, alpha=1.0, examples_per_device=0)
    for device in (0, workload.devices - 1):
        own = data.training(device)
        expected = torch.from_numpy(workload.x[device][workload.training_rows[device]])
        if not torch.equal(own.x, expected):
            raise AssertionError(f"device {device} does not train on the rows that were laid down for it")


def _cohorts(plan: Plan, folder: Path) -> npt.NDArray[np.int64]:
    """Who trains in which round, by the clock alone."""
    experiment = experiment_of(folder, rounds=plan.rounds, cohort=plan.cohort, settings=["engine.timing_only=true"])
    with tempfile.TemporaryDirectory() as place:
        run = simulate(experiment, Path(place) / "run")
        cohorts = trained(run, steps=plan.steps)
        # Kept for the runs to come: an export is no part of what is timed.
        shutil.rmtree(folder / "bundle", ignore_errors=True)
        shutil.copytree(run.path / "bundle", folder / "bundle")
    if cohorts.shape != (plan.rounds, plan.cohort):
        raise AssertionError(f"{cohorts.shape} rounds and devices took part, not {(plan.rounds, plan.cohort)}")
    return cohorts


def _orders(plan: Plan, cohorts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The order of each assignment's batches, as its ``batch_seed`` draws it."""
    count = plan.steps * plan.batch_size

    def order(round_index: int, device: int) -> npt.NDArray[np.int64]:
        seed = int(draw_key(SEED, "batch_seed", round_index, device) >> np.uint64(1))
        return np.concatenate(list(batch_indices(count, steps=plan.steps, batch_size=plan.batch_size, batch_seed=seed)))

    return np.stack([np.stack([order(index, int(device)) for device in row]) for index, row in enumerate(cohorts)])
