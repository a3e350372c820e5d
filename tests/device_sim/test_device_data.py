import numpy as np
import pytest
import torch
from tiny import TinyTask, tiny_data
from torch import nn

from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.errors import InputError
from pocketfleet.training.examples import Examples
from pocketfleet.training.feature_scaling import FeatureScaling
from pocketfleet.training.task import task_examples
from pocketfleet.training.user_examples import UserExamples, joined


def test_natural_users_keep_their_own_examples() -> None:
    data = tiny_data(TinyTask(users=6), devices=6)
    # One in five is held out, of those that hold five or more: users 4 and 5 hold 5 and 6 examples.
    assert data.num_training.tolist() == [1, 2, 3, 4, 4, 5]
    assert [len(data.held_out(device)) for device in range(6)] == [0, 0, 0, 0, 1, 1]
    for device in range(6):
        assert set(data.training(device).y.tolist()) == {float(device + 1)}


def test_natural_needs_a_task_that_knows_its_users() -> None:
    task = TinyTask()
    shared = type("Shared", (), {name: getattr(task, name) for name in ("name", "train_examples", "test_examples")})
    with pytest.raises(InputError, match="needs a task with device_examples"):
        DeviceData(shared, kind="natural", devices=2, seed=0, alpha=1.0, examples_per_device=0)


def test_training_and_held_out_examples_are_all_there_is() -> None:
    task = TinyTask(users=9)  # 45 examples, told apart by nothing but their number: count them
    data = DeviceData(task, kind="iid", devices=4, seed=1, alpha=1.0, examples_per_device=0)
    sizes = [len(data.training(device)) + len(data.held_out(device)) for device in range(4)]
    assert sum(sizes) == 45
    targets = torch.cat([part(device).y for device in range(4) for part in (data.training, data.held_out)])
    assert sorted(targets.tolist()) == sorted(task.train_examples().y.tolist())


def test_of_examples_that_arrive_every_fifth_is_held_out_for_good() -> None:
    data = DeviceData(TinyTask(users=9), kind="iid", devices=3, seed=1, alpha=1.0, examples_per_device=0, arrives=True)
    assert (data.num_training.tolist(), data.num_held_out.tolist()) == ([12] * 3, [3] * 3)
    for device in range(3):
        assert (len(data.training(device)), len(data.held_out(device))) == (12, 3)
        order = [data._rows[device][place] for place in range(15)]
        whole = task_examples(TinyTask(users=9), "train").y
        for present in (range(4), range(5), range(4, 5), range(3, 15)):
            training, held_out = data.training(device, present).y, data.held_out(device, present).y
            assert training.tolist() == [float(whole[order[n]]) for n in present if n not in {4, 9, 14}]
            assert held_out.tolist() == [float(whole[order[n]]) for n in present if n in {4, 9, 14}]


class Scaled(TinyTask):
    def train_examples(self) -> Examples:
        x = torch.arange(40, dtype=torch.float32).reshape(20, 2)
        return Examples(x, torch.zeros(20))


def test_scaling_comes_from_the_examples_that_devices_train_on() -> None:
    data = DeviceData(Scaled(), kind="iid", devices=3, seed=1, alpha=1.0, examples_per_device=0)
    found = data.scaling(nn.Sequential(FeatureScaling(2), nn.Linear(2, 1)))
    pooled = np.concatenate([data.training(device).x.numpy() for device in range(3)]).astype(np.float64)
    np.testing.assert_allclose(found["0.mean"], pooled.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found["0.scale"], pooled.std(axis=0), rtol=1e-6)
    assert data.scaling(nn.Linear(2, 1)) == {}


class Columns(TinyTask):
    """The same users' examples as columns."""

    def user_examples(self) -> UserExamples:
        return joined([self.device_examples(device) for device in range(6)], what="user")


def test_columns_of_users_are_what_their_own_examples_are() -> None:
    columns, own = tiny_data(Columns(users=6), devices=5), tiny_data(TinyTask(users=6), devices=5)
    assert columns.num_training.tolist() == own.num_training.tolist()
    for device in range(5):
        for part in ("training", "held_out"):
            assert torch.equal(getattr(columns, part)(device).y, getattr(own, part)(device).y)
    # The rows of the sixth user are in the columns, and no device's: 1 + 2 + ... + 6.
    assert (len(columns.examples), len(own.examples)) == (21, 15)


def test_more_devices_than_users() -> None:
    with pytest.raises(InputError, match=r"^fleet.devices must be 1..6 \(the users of task 'tiny', .*got 7: lower it"):
        tiny_data(Columns(), devices=7)


def test_columns_that_are_none_or_fail() -> None:
    class Wrong(TinyTask):
        def user_examples(self) -> object:
            return self.train_examples()

    class Failing(TinyTask):
        def user_examples(self) -> UserExamples:
            raise KeyError(3)

    with pytest.raises(InputError, match=r"^user_examples of task 'tiny' must return UserExamples.*, got Examples$"):
        tiny_data(Wrong())
    with pytest.raises(InputError, match=r"^user_examples of task 'tiny' failed: KeyError: 3$"):
        tiny_data(Failing())
