"""One program, three runtimes: the exported programs move a device's weights as eager PyTorch does."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from pocketfleet import Bundle, Experiment, Run, simulate
from pocketfleet.device_sim.chunk_result import stacked
from pocketfleet.device_sim.client import Assignment, Client
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.errors import GateError
from pocketfleet.export.exporter import write_bundle
from pocketfleet.export.plan import make_plan
from pocketfleet.export.session import EagerSession, Session, open_session
from pocketfleet.export.verification import verify_bundle
from pocketfleet.training.aggregation import MeanAggregator
from pocketfleet.training.algorithms.fedavg import FedAvg
from pocketfleet.training.server_optimizer import ServerSgd
from pocketfleet.training.task import check_task, initial_model, load_task
from pocketfleet.training.tasks.boston import BostonTask
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors

# Float32 training is chaotic in the long run; from the same weights one device's update is not.
MEDIAN, EACH = 1e-5, 1e-3
ALGORITHM = FedAvg(server_optimizer=ServerSgd())


class Fleet:
    """Devices of one task that train the same work in several runtimes."""

    def __init__(self, bundle: Bundle, *, devices: int, examples: int, hyper: dict[str, float], epochs: int) -> None:
        self.task = load_task(bundle.manifest.task.name)
        self.model = initial_model(self.task, seed=5)
        self.data = DeviceData(self.task, kind="iid", devices=devices, seed=5, alpha=1.0, examples_per_device=examples)
        self.settings = bundle.manifest.step_settings
        self.batch_size = bundle.manifest.max_batch
        self.hyper, self.devices, self.epochs, self.bundle = hyper, devices, epochs, bundle
        weights = check_task(self.task, self.model, self.data.training(0))
        self.weights = weights.with_frozen(self.data.scaling(self.model))

    def client(self, runtime: Literal["torch", "executorch", "onnx"], bundle: Bundle | None = None) -> Client:
        session: Session
        if runtime == "torch":
            session = EagerSession(self.task, self.model, self.settings)
        else:
            session = open_session(bundle or self.bundle, runtime)
        return Client(
            session=session,
            data=self.data,
            algorithm=ALGORITHM,
            settings=self.settings,
            hyper=self.hyper,
            batch_size=self.batch_size,
        )

    def work(self, device: int, round_index: int) -> Assignment:
        steps = self.epochs * -(-int(self.data.num_training[device]) // self.batch_size)
        return Assignment(device=device, steps=steps, batch_seed=1000 * round_index + device, device_state={})

    def rounds(self, count: int, runtime: Literal["executorch", "onnx"], bundle: Bundle | None = None) -> list[float]:
        """Relative distance of every device's update to torch's, the model moving on by torch's alone."""
        reference, other, weights, distances = self.client("torch"), self.client(runtime, bundle), self.weights, []
        for round_index in range(count):
            aggregator = MeanAggregator()
            for device in range(self.devices):
                work = self.work(device, round_index)
                expected = reference.train(work, weights, {}).update
                distances.append(distance(other.train(work, weights, {}).update.delta, expected.delta))
                alone = Update(*(stacked([tensors]) for tensors in expected.groups().values()))
                aggregator.add_many(alone, weight=np.ones(1), scale=np.ones(1))
            weights, _ = ALGORITHM.server_update(weights, aggregator.result(), {}, participation=1.0)
        return distances


def distance(found: Tensors, expected: Tensors) -> float:
    flat_found, flat_expected = (torch.cat([value.flatten() for value in t.values()]) for t in (found, expected))
    assert list(found) == list(expected)
    return float((flat_found - flat_expected).norm() / flat_expected.norm())


@pytest.fixture(scope="module")
def boston(boston_bundle: Bundle) -> Fleet:
    return Fleet(boston_bundle, devices=2, examples=0, hyper={"learning_rate": 1e-3}, epochs=1)


@pytest.fixture(scope="module")
def mnist(mnist_bundle: Bundle) -> Fleet:
    return Fleet(mnist_bundle, devices=8, examples=200, hyper={"learning_rate": 0.05, "momentum": 0.9}, epochs=1)


@pytest.mark.parametrize("runtime", ["executorch", "onnx"])
def test_boston_updates_agree_in_each_of_a_hundred_rounds(boston: Fleet, runtime, capsys) -> None:
    distances = boston.rounds(100, runtime)
    with capsys.disabled():
        print(f"\nboston {runtime}: median {np.median(distances):.1e}, largest {max(distances):.1e}", end="")
    assert len(distances) == 200
    assert np.median(distances) < MEDIAN
    assert max(distances) < EACH


@pytest.mark.parametrize("runtime", ["executorch", "onnx"])
def test_mnist_updates_agree_in_each_of_two_rounds(mnist: Fleet, runtime, capsys) -> None:
    # 200 examples a phone, a fifth of them held out: 160 train.
    assert mnist.data.num_training.tolist() == [160] * 8
    distances = mnist.rounds(2, runtime)
    with capsys.disabled():
        print(f"\nmnist {runtime}: median {np.median(distances):.1e}, largest {max(distances):.1e}", end="")
    assert len(distances) == 16
    assert np.median(distances) < MEDIAN
    assert max(distances) < EACH


@pytest.mark.parametrize("runtime", ["executorch", "onnx"])
@pytest.mark.parametrize("name", ["boston", "mnist"])
def test_predict_learns(name: str, runtime, request: pytest.FixtureRequest) -> None:
    fleet: Fleet = request.getfixturevalue(name)
    session, eager = fleet.client(runtime).session, fleet.client("torch").session
    result = fleet.client(runtime).train(fleet.work(0, 0), fleet.weights, {})
    trained = replace(fleet.weights, trainable={key: result.personalised[key] for key in fleet.weights.trainable})
    x = fleet.data.test.x[: fleet.batch_size]
    before, after = session.predict(fleet.weights, x), session.predict(trained, x)
    scale = after.abs().max()
    assert float((after - eager.predict(trained, x)).abs().max() / scale) < 1e-5
    assert float((after - before).abs().max() / scale) > 1e-2


def run_of(runtime: str, bundle: Path, out: Path) -> Run:
    experiment = Experiment.load(
        "boston-two-phones", [f"engine.runtime={runtime}", f"task.bundle={bundle}", "rounds.count=4"]
    )
    return simulate(experiment, out)


def test_the_events_do_not_depend_on_the_runtime(boston_bundle: Bundle, tmp_path: Path) -> None:
    runs = [run_of(name, boston_bundle.path, tmp_path / name) for name in ("torch", "executorch", "onnx")]
    assert len({run.summary["events_sha256"] for run in runs}) == 1
    assert [run.summary["runtime"] for run in runs] == ["torch", "executorch", "onnx"]
    losses = [run.summary["metrics"]["last"]["test_loss"] for run in runs]
    assert losses[1:] == pytest.approx(losses[:1] * 2, rel=1e-3)


class Altered(BostonTask):
    """Boston with one constant of its loss changed: 1.01 times the squared error."""

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return 1.01 * super().loss(output, target)


@pytest.fixture(scope="module")
def altered_bundle(boston_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Really exported programs of the altered task under a manifest that names the right one; no gate would pass it."""
    plan = make_plan(
        Altered(leave_out_b=False, split_seed=0),
        settings=boston_bundle.settings,
        hyper=boston_bundle.hyper,
        max_batch=boston_bundle.max_batch,
        task_path="boston",
    )
    return write_bundle(plan, out=tmp_path_factory.mktemp("altered") / "bundle", force=False, gated=False)


@pytest.mark.parametrize("runtime", ["torch", "executorch", "onnx"])
def test_an_altered_constant_in_the_bundle_reaches_the_model_by_way_of_the_program_alone(
    runtime: str, boston_bundle: Bundle, altered_bundle: Bundle, tmp_path: Path
) -> None:
    right, wrong = (
        run_of(runtime, bundle.path, tmp_path / name).summary["model_sha256"]
        for name, bundle in (("right", boston_bundle), ("wrong", altered_bundle))
    )
    assert (right == wrong) == (runtime == "torch")


@pytest.mark.parametrize("runtime", ["executorch", "onnx"])
def test_an_altered_constant_moves_every_update(boston: Fleet, altered_bundle: Bundle, runtime) -> None:
    # One step from the same weights moves 1.01 times as far; 21 steps of an epoch about as much.
    distances = boston.rounds(1, runtime, altered_bundle)
    assert len(distances) == 2
    assert min(distances) > EACH
    assert max(distances) < 0.1


def test_verify_finds_the_altered_constant(altered_bundle: Bundle) -> None:
    with pytest.raises(GateError, match="gradient"):
        verify_bundle(altered_bundle, load_task("boston"))
