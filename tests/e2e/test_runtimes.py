"""One program, three runtimes: the exported programs move a device's weights as eager PyTorch does."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from pocketfleet import Bundle, Experiment, simulate
from pocketfleet.device_sim.client import Assignment, Client
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.export.session import EagerSession, Session, open_session
from pocketfleet.training.aggregation import MeanAggregator
from pocketfleet.training.algorithm import FedAvg
from pocketfleet.training.server_optimizer import ServerSgd
from pocketfleet.training.task import check_task, initial_model, load_task
from pocketfleet.training.weights import Tensors, Weights

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
                aggregator.add(expected, device=device, weight=1.0)
            weights, _ = ALGORITHM.server_update(weights, aggregator.result(), {})
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


def run_of(runtime: str, bundle: Path, out: Path) -> object:
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


def weights_of(path: Path) -> Weights:
    return Bundle.load(path).weights()
