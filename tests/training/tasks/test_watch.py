import numpy as np
import pytest
import torch
from improvement import metric_before_and_after

from pocketfleet.errors import InputError
from pocketfleet.training.task import initial_model, load_task
from pocketfleet.training.tasks.watch import make_task
from pocketfleet.training.users_task import UsersTask


@pytest.fixture(scope="module")
def watch() -> UsersTask:
    task = load_task("watch")
    assert isinstance(task, UsersTask)
    return task


def test_ten_people_seven_exercises(watch: UsersTask) -> None:
    users, test = watch.user_examples(), watch.test_examples()
    assert (len(users), tuple(users.x.shape[1:]), users.x.dtype, users.y.dtype) == (
        10,
        (100, 6),
        torch.float32,
        torch.int64,
    )
    for person in range(10):
        assert users.of(person).y.unique().tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert test.y.unique().tolist() == [0, 1, 2, 3, 4, 5, 6]
    # 244,102 samples in 140 recordings. Windows start each 50 samples, the last of a part up to 149 samples before its
    # end: of the four fifths, 195,282 samples, at most one for 50, and at least so many less three a recording.
    assert (195_282 - 150 * 140) / 50 < len(users.x) < 195_282 / 50
    assert (48_820 - 150 * 140) / 50 < len(test.x) < 48_820 / 50


def test_windows_are_the_recordings_and_no_sample_is_in_both_parts() -> None:
    task = make_task(window=40, stride=40)
    train, test = task.train_examples().x, task.test_examples().x
    samples = {row.numpy().tobytes() for row in train.reshape(-1, 6)}
    # Of 7 digits on 6 axes, two moments of one recording are hardly ever alike.
    assert len(samples) > 0.99 * len(train) * 40
    again = sum(row.numpy().tobytes() in samples for row in test.reshape(-1, 6))
    assert again < 0.01 * len(test) * 40
    # Accelerations are in g: at rest, and on average, the three axes together measure about one.
    size = np.linalg.norm(train[:, :, :3].reshape(-1, 3).numpy(), axis=1).mean()
    assert 0.8 < size < 1.6


def test_the_model(watch: UsersTask) -> None:
    model = initial_model(watch, seed=0)
    # Convolutions of 5 over 6 and 16 channels, a linear layer over 32 channels; a bias each.
    assert sum(value.numel() for value in model.parameters()) == (6 * 5 + 1) * 16 + (16 * 5 + 1) * 32 + (32 + 1) * 7
    for window in (8, 180):
        made = make_task(window=window, stride=200).make_model()
        assert made(torch.zeros(3, window, 6)).shape == (3, 7)


def test_it_is_learnt(watch: UsersTask) -> None:
    before, after = metric_before_and_after(watch, steps=300, learning_rate=0.02)
    # One in seven by chance.
    assert before < 0.3
    assert after > 0.8


@pytest.mark.parametrize("window", [4, 42, 184])
def test_windows_that_cannot_be(window: int) -> None:
    with pytest.raises(InputError, match=rf"^watch's window must be 8..180 samples and a multiple of 4, got {window}$"):
        make_task(window=window)
    with pytest.raises(InputError, match=r"^watch's stride must be 1 sample or more, got 0$"):
        make_task(stride=0)
