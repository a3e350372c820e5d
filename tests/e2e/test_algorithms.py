"""Algorithms, server optimizers and every term of a step, from the experiment file down to the exported programs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketfleet import Bundle, Experiment, Run, resume, simulate
from pocketfleet.assembly import Parts, workload
from pocketfleet.device_sim.workload import Workload
from pocketfleet.errors import InputError
from pocketfleet.export.exporter import export_task
from pocketfleet.training.codec.lossless import tensors_bytes
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
from pocketfleet.training.algorithms.fedavg import FedAvg

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


# Algorithms whose devices keep something, with the terms that their steps need.
KEEPING = {
    "scaffold": StepSettings(correction=True),
    "feddyn": StepSettings(correction=True, proximal=True),
    "ditto": StepSettings(proximal=True),
}
THREE_PHONES = (
    'fleet.phones=["Pixel 8", "Redmi Note 9", "Pixel 8"]',
    "fleet.names=[]",
    "fleet.devices=3",
    "rounds.cohort=2",
)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Bundle]:
    return {
        name: export_task(
            load_task("boston"),
            out=tmp_path_factory.mktemp(name) / "bundle",
            settings=settings,
            hyper={"learning_rate": 1e-3} | ({"proximal_mu": 0.1} if settings.proximal else {}),
            max_batch=8,
            task_path="boston",
        )
        for name, settings in KEEPING.items()
    }


class StoppedError(Exception):
    """A run that is looked away from."""


@pytest.mark.parametrize("name", KEEPING)
def test_what_devices_keep_lasts_on_every_runtime_and_over_a_stop(
    name: str, bundles: Mapping[str, Bundle], tmp_path: Path
) -> None:
    settings = (
        *THREE_PHONES,
        f"algorithm.name={name}",
        "rounds.count=4",
        "engine.plan=each",
        "engine.checkpoint_share=1.0",
    )
    whole, *others = (
        run(bundles[name], tmp_path / runtime, *settings, f"engine.runtime={runtime}")
        for runtime in ("torch", "executorch", "onnx")
    )
    assert mse(whole)[-1] < mse(whole)[0]
    for other in others:
        assert mse(other) == pytest.approx(mse(whole), rel=1e-3)
        assert other.summary["events_sha256"] == whole.summary["events_sha256"]

    seen: list[Any] = []

    def watch(stage: str, row: Mapping[str, Any]) -> None:
        seen.extend([row] if stage == "round" else [])
        if len(seen) == 3:
            raise StoppedError

    experiment = Experiment.load("boston-two-phones", [f"task.bundle={bundles[name].path}", *settings])
    with pytest.raises(StoppedError):
        simulate(experiment, tmp_path / "stopped", observer=watch)
    assert resume(tmp_path / "stopped").summary["model_sha256"] == whole.summary["model_sha256"]


@pytest.mark.parametrize(("name", "own"), [("scaffold", ()), ("ditto", ()), ("fedper", ('algorithm.private=["7.*"]',))])
def test_two_processes_give_the_hash_of_one(
    name: str, own: tuple[str, ...], bundles: Mapping[str, Bundle], boston_bundle: Bundle, tmp_path: Path
) -> None:
    settings = (
        *THREE_PHONES,
        "rounds.cohort=3",
        f"algorithm.name={name}",
        *own,
        "engine.plan=batched",
        # Three devices are two chunks.
        "engine.chunk=2",
    )
    one, two = (
        run(bundles.get(name, boston_bundle), tmp_path / processes, *settings, f"engine.processes={processes}")
        for processes in ("1", "2")
    )
    assert len(set(mse(one))) == one.summary["rounds"] == 3
    for key in ("model_sha256", "events_sha256", "metrics", "personalisation", "rounds"):
        assert two.summary[key] == one.summary[key]


def test_dittos_shared_model_is_averagings_and_its_own_ones_are_not(
    bundles: Mapping[str, Bundle], boston_bundle: Bundle, tmp_path: Path
) -> None:
    plain = run(boston_bundle, tmp_path / "fedavg", "engine.plan=each")
    ditto = run(bundles["ditto"], tmp_path / "ditto", "engine.plan=each", "algorithm.name=ditto")
    assert mse(ditto) == pytest.approx(mse(plain), rel=1e-6)
    assert ditto.summary["personalisation"]["personalised"] != plain.summary["personalisation"]["personalised"]
    # Two models, by a step that also has the proximal term: a little more than twice the seconds, and the same bytes.
    seconds, bytes_sent = (
        [r.events.loc[r.events["kind"] == kind, column].sum() for r in (ditto, plain)]
        for kind, column in (("train", "seconds"), ("upload", "bytes"))
    )
    assert 2.0 < seconds[0] / seconds[1] < 2.5
    assert bytes_sent[0] == bytes_sent[1] > 0


def asked(bundle: Bundle, *settings: str) -> tuple[Workload, Parts]:
    experiment = Experiment.load("boston-two-phones", list(settings))
    parts = Parts.of(experiment, None)
    return workload(experiment, parts, bundle), parts


def test_what_travels_is_what_the_algorithm_reports_and_broadcasts(boston_bundle: Bundle) -> None:
    plain, parts = asked(boston_bundle)
    trainable = parts.weights.trainable
    assert plain.update_bytes == plain.weights_bytes == tensors_bytes(trainable)
    for name in ("feddyn", "fedprox"):
        same, _ = asked(boston_bundle, f"algorithm.name={name}")
        assert (same.update_bytes, same.weights_bytes) == (plain.update_bytes, plain.weights_bytes)
        assert same.bundle_bytes == plain.bundle_bytes
        assert np.array_equal(same.step_s, plain.step_s)

    scaffold, _ = asked(boston_bundle, "algorithm.name=scaffold")
    assert scaffold.update_bytes == tensors_bytes(
        trainable | {f"extra/{name}": value for name, value in trainable.items()}
    )
    assert scaffold.weights_bytes == 2 * plain.weights_bytes

    ditto, _ = asked(boston_bundle, "algorithm.name=ditto")
    assert (ditto.update_bytes, ditto.weights_bytes) == (plain.update_bytes, plain.weights_bytes)
    assert ditto.step_s.tolist() == (2 * plain.step_s).tolist()
    # The second model's weights.
    assert ditto.training_memory_bytes >= plain.training_memory_bytes + tensors_bytes(trainable)

    # The last layer of BostonTask's model stays where it is after the first time.
    fedper, _ = asked(boston_bundle, "algorithm.name=fedper", 'algorithm.private=["7.*"]')
    head = {name: value for name, value in trainable.items() if name.startswith("7.")}
    body = {name: value for name, value in trainable.items() if name not in head}
    assert sorted(head) == ["7.bias", "7.weight"]
    assert fedper.update_bytes == fedper.weights_bytes == tensors_bytes(body)
    assert fedper.bundle_bytes == plain.bundle_bytes + tensors_bytes(head)


def test_heads_stay_on_devices(boston_bundle: Bundle, tmp_path: Path) -> None:
    found = run(boston_bundle, tmp_path / "run", "algorithm.name=fedper", 'algorithm.private=["7.*"]')
    first, last = Bundle.load(found.path / "bundle").weights().trainable, found.weights().trainable
    for name, value in first.items():
        assert bool((value == last[name]).all()) == name.startswith("7."), name
    # Devices' own models, heads included, predict better than a body under a head that nobody trained.
    measured = found.summary["personalisation"]
    assert measured["devices"] == 2
    assert measured["personalised"] < measured["global"]


def test_one_gradient_a_round(boston_bundle: Bundle) -> None:
    settings = ("algorithm.name=fedsgd", "training.batch_size=16", 'partition.kind="quantity"')
    found, parts = asked(boston_bundle, *settings)
    counts = parts.data.num_training
    assert counts.min() < counts.max() == found.batch_size
    assert found.steps.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["algorithm.name=scaffold", "training.momentum=0.9"], r"algorithm scaffold works out .*got sgd with momentum"),
        (["algorithm.name=scaffold", "training.optimizer=adam"], r"algorithm scaffold works out .*got plain adam"),
        (["algorithm.name=fedsgd", "training.batch_size=16", "training.momentum=0.9"], r"one step of plain SGD"),
        (
            ["algorithm.name=fedper", 'algorithm.private=["head.*"]'],
            r"which are 1\.bias, 1\.weight, .*'head\.\*' names none",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_written(
    settings: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        simulate(Experiment.load("boston-two-phones", settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("optimizer", ["adam", "yogi", "adagrad"])
def test_adaptive_servers_learn(optimizer: str, boston_bundle: Bundle, tmp_path: Path) -> None:
    settings = (f"server.optimizer={optimizer}", "server.learning_rate=0.02", "rounds.count=12")
    found = run(boston_bundle, tmp_path / optimizer, *settings)
    assert mse(found)[-1] < 0.9 * found.summary["metrics"]["initial"]["test_mse"]
