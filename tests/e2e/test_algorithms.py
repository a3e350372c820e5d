"""Algorithms, server optimizers and every term of a step, from the experiment file down to the exported programs."""

from pathlib import Path

import pytest

from pocketfleet import Bundle, Experiment, Run, simulate
from pocketfleet.export.exporter import export_task
from pocketfleet.training.task import load_task
from pocketfleet.training.train_step import StepSettings

ALL_TERMS = (
    "training.momentum=0.5",
    "training.nesterov=true",
    "training.weight_decay=0.01",
    "training.max_norm=5.0",
    "algorithm.name=fedprox",
)
OWN = '''
from dataclasses import dataclass, replace
from pocketfleet.training.algorithm import FedAvg

@dataclass(frozen=True, slots=True, kw_only=True)
class Halved(FedAvg):
    """Every device reports half of what it learnt."""
    name: str = "halved"

    def client_update(self, trained, broadcast, device_state):
        halved = {name: value / 2 for name, value in trained.update.delta.items()}
        return replace(trained.update, delta=halved), device_state

def make_algorithm(server_optimizer):
    return Halved(server_optimizer=server_optimizer)
'''


def run(bundle: Bundle | None, out: Path, *settings: str) -> Run:
    given = [f"task.bundle={bundle.path}"] if bundle else []
    return simulate(Experiment.load("boston-two-phones", [*given, "rounds.count=3", *settings]), out)


def mse(run: Run) -> list[float]:
    return [float(value) for value in run.rounds["test_mse"]]


@pytest.fixture(scope="module")
def all_terms_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_task(
        load_task("boston"),
        out=tmp_path_factory.mktemp("terms") / "bundle",
        settings=StepSettings(momentum=True, nesterov=True, weight_decay=True, proximal=True, clipping=True),
        hyper={"learning_rate": 1e-3, "momentum": 0.5, "weight_decay": 0.01, "max_norm": 5.0, "proximal_mu": 0.1},
        max_batch=8,
        task_path="boston",
    )


def test_every_term_trains_alike_on_every_runtime(all_terms_bundle: Bundle, tmp_path: Path) -> None:
    runs = {
        name: run(all_terms_bundle, tmp_path / name, *ALL_TERMS, "algorithm.proximal_mu=0.1", f"engine.runtime={name}")
        for name in ("torch", "executorch", "onnx")
    }
    assert mse(runs["torch"])[-1] < mse(runs["torch"])[0]
    for name in ("executorch", "onnx"):
        assert mse(runs[name]) == pytest.approx(mse(runs["torch"]), rel=1e-3)
        assert runs[name].summary["events_sha256"] == runs["torch"].summary["events_sha256"]


def test_fedprox_holds_devices_back(all_terms_bundle: Bundle, tmp_path: Path) -> None:
    loose, tight = (
        run(all_terms_bundle, tmp_path / mu, *ALL_TERMS, f"algorithm.proximal_mu={mu}") for mu in ("0.0", "100.0")
    )
    # The stronger the pull to the downloaded model, the slower the first rounds.
    assert mse(tight)[0] > mse(loose)[0]


def test_a_bundle_without_a_term_is_refused_for_an_experiment_with_it(boston_bundle: Bundle, tmp_path: Path) -> None:
    from pocketfleet.errors import InputError

    with pytest.raises(
        InputError,
        match=r"task.bundle .* was exported for plain sgd, the experiment is sgd with proximal",
    ):
        run(boston_bundle, tmp_path / "run", "algorithm.name=fedprox")
    assert not (tmp_path / "run").exists()


def test_server_momentum_is_another_path(boston_bundle: Bundle, tmp_path: Path) -> None:
    plain = run(boston_bundle, tmp_path / "sgd")
    slow = run(boston_bundle, tmp_path / "slow", "server.learning_rate=0.5")
    heavy = run(boston_bundle, tmp_path / "momentum", "server.optimizer=momentum", "server.momentum=0.9")
    none = run(boston_bundle, tmp_path / "none", "server.optimizer=momentum", "server.momentum=0.0")
    # The first step has no momentum yet; without any, every step is plain.
    assert mse(heavy)[0] == mse(plain)[0]
    assert mse(heavy)[1:] != mse(plain)[1:]
    assert mse(none) == mse(plain)
    assert mse(slow)[0] > mse(plain)[0]


def test_a_users_own_algorithm(boston_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_halved.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = run(boston_bundle, tmp_path / "own", "algorithm.name=my_halved:make_algorithm")
    # Halving what every device reports is halving the server's rate.
    slow = run(boston_bundle, tmp_path / "slow", "server.learning_rate=0.5")
    assert mse(own) == pytest.approx(mse(slow), rel=1e-6)


NORMALISED = """
import torch
from torch import nn
from pocketfleet.training.tasks.boston import BostonTask
from pocketfleet.training.feature_scaling import FeatureScaling

class Normalised(BostonTask):
    def make_model(self):
        return nn.Sequential(FeatureScaling(13), nn.Linear(13, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))

def make_task():
    return Normalised(leave_out_b=False, split_seed=0)
"""


def test_batch_norm_statistics_travel_with_the_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_normalised.py").write_text(NORMALISED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = ["task.name=my_normalised:make_task", "training.learning_rate=0.01"]
    first = run(None, tmp_path / "torch", *settings)
    bundle = Bundle.load(tmp_path / "torch" / "bundle")
    assert set(bundle.weights().buffers) == {"2.running_mean", "2.running_var", "2.num_batches_tracked"}
    others = [run(bundle, tmp_path / name, *settings, f"engine.runtime={name}") for name in ("executorch", "onnx")]
    assert mse(first)[-1] < 0.5 * first.summary["metrics"]["initial"]["test_mse"]
    for other in others:
        assert mse(other) == pytest.approx(mse(first), rel=1e-3)
