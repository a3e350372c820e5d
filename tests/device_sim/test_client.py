from dataclasses import replace

import pytest
import torch
from tiny import TinyTask, make_client, tiny_data, tiny_weights

from pocketfleet.device_sim.client import Assignment, mean_evaluation
from pocketfleet.device_sim.cohort import Cohort
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.export.session import EagerSession
from pocketfleet.training.examples import Examples
from pocketfleet.training.train_step import StepSettings


def work(device: int, steps: int = 1) -> Assignment:
    return Assignment(device=device, steps=steps, batch_seed=7, device_state={})


def test_a_device_moves_its_weight_by_its_own_examples() -> None:
    client, weights = make_client(), tiny_weights()
    result = client.train(work(3), weights, {})
    # From w = 0 towards y = 4: the gradient of (w - 4)^2 is -8, at rate 0.25 a step to w = 2.
    assert result.update.delta["w"].item() == pytest.approx(2.0)
    assert result.personalised["w"].item() == pytest.approx(2.0)
    assert result.train_loss == pytest.approx(16.0)
    assert result.finite
    assert weights.trainable["w"].item() == 0.0
    # A second step halves the distance again: w = 3; its loss before was (2 - 4)^2 = 4, the mean 10.
    result = client.train(work(3, steps=2), weights, {})
    assert result.update.delta["w"].item() == pytest.approx(3.0)
    assert result.train_loss == pytest.approx(10.0)


def test_a_device_trains_on_the_examples_that_are_there() -> None:
    task, client = TinyTask(users=4), make_client()
    data = DeviceData(task, kind="iid", devices=1, seed=0, alpha=1.0, examples_per_device=0, arrives=True)
    client = replace(client, data=data)
    targets = data.training(0, range(4)).y
    assert float(targets.square().mean()) != pytest.approx(float(data.training(0).y.square().mean()))
    result = client.train(replace(work(0), present=range(4)), tiny_weights(), {})
    # From w = 0 the loss is the mean of y^2 over these four, not over all that it will get.
    assert result.train_loss == pytest.approx(float(targets.square().mean()))
    assert result.num_held_out == 0
    assert client.train(replace(work(0), present=range(10)), tiny_weights(), {}).num_held_out == 2


def test_held_out_examples_are_measured_before_and_after() -> None:
    task = TinyTask(users=5)
    client = make_client()
    client = replace(client, data=tiny_data(task, devices=5), batch_size=8)
    result = client.train(work(4), tiny_weights(), {})
    # User 4 holds out one example with y = 5: (0 - 5)^2 before, and after one step to w = 2.5, 6.25.
    assert result.metrics_before == {"loss": pytest.approx(25.0), "mse": pytest.approx(25.0)}
    assert result.metrics_after == {"loss": pytest.approx(6.25), "mse": pytest.approx(6.25)}
    assert client.train(work(0), tiny_weights(), {}).metrics_before == {}
    unmeasured = replace(client, personalised=False).train(work(4), tiny_weights(), {})
    assert (unmeasured.metrics_after, unmeasured.personalised, unmeasured.num_held_out) == ({}, {}, 0)
    assert torch.equal(unmeasured.update.delta["w"], result.update.delta["w"])


def test_a_chunk_is_its_devices_one_by_one() -> None:
    client, devices = make_client(broken=True), [3, 2, 1]
    cohort = Cohort.of_devices(devices, steps=[3, 2, 1], batch_seed=7)
    cohort.weight[:] = [4.0, 3.0, 2.0]
    result = client.train_chunk(cohort, tiny_weights(), {}, {})
    alone = [client.train(work(device, device), tiny_weights(), {}) for device in devices]
    assert result.finite.tolist() == [True, False, True]
    assert result.train_loss.tolist()[::2] == [alone[0].train_loss, alone[2].train_loss]
    assert result.own_model["w"].tolist()[::2] == [one.personalised["w"].item() for one in alone[::2]]
    # Device 2's update is not finite and weighs nothing: (4 * 3.5 + 2 * 1) / 6.
    assert result.part.num_updates == 2
    assert result.part.result().delta["w"].item() == pytest.approx(16 / 6)


def test_what_is_not_finite_is_told() -> None:
    client = make_client(broken=True)
    assert client.train(work(1), tiny_weights(), {}).finite
    assert not client.train(work(2), tiny_weights(), {}).finite


def test_an_evaluation_is_a_mean_over_examples_whatever_the_batches() -> None:
    task = TinyTask()
    session = EagerSession(task, task.make_model(), StepSettings())
    examples = Examples(torch.ones(5), torch.tensor([0.0, 1.0, 2.0, 3.0, 9.0]))
    # Squares of 0, 1, 2, 3, 9: 95 in all.
    for batch_size in (1, 2, 3, 5, 8):
        found = mean_evaluation(session, tiny_weights(), examples, batch_size=batch_size)
        assert found["mse"] == pytest.approx(19.0)
    assert mean_evaluation(session, tiny_weights(), examples.take(torch.arange(0)), batch_size=4) == {}
