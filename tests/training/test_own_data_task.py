from pathlib import Path

import pytest
import torch

from pocketfleet.errors import InputError
from pocketfleet.training.converted import Converted
from pocketfleet.training.examples import Examples
from pocketfleet.training.own_data_task import own_data_task
from pocketfleet.training.task import check_task, initial_model
from pocketfleet.training.user_examples import joined
from pocketfleet.training.users_task import UsersTask

FEATURES = torch.ones(5, 3)
CLASSES = torch.tensor([0, 1, 0, 1, 0])


def made(x: torch.Tensor = FEATURES, y: torch.Tensor = CLASSES, **options: object) -> UsersTask:
    test = Examples(x[:1], y[:1] + 3 if y.dtype == torch.int64 else y[:1])
    given = {"model": "", "loss": "", "metrics": "", "hidden": None} | options
    return own_data_task("mine", Converted(joined([Examples(x, y)], what="user"), test), **given)


@pytest.mark.parametrize(
    ("x", "y", "hidden", "output", "metrics"),
    [
        # Class 3 is in the test part alone, and counts.
        (FEATURES, CLASSES, None, (5, 4), ["accuracy"]),
        (FEATURES, torch.ones(5, 2), [4], (5, 2), ["mse", "mae"]),
        (torch.ones(5, 1, 2, 2), CLASSES, [4], (5, 4), ["accuracy"]),
    ],
)
def test_the_usual_models(x, y, hidden, output: tuple[int, ...], metrics: list[str]) -> None:
    task = made(x, y, hidden=hidden)
    model = initial_model(task, seed=0)
    assert tuple(model(x).shape) == output
    assert list(task.metrics(model(x), y)) == metrics
    check_task(task, model, task.train_examples())


MODULE = """
import torch
NUMBER = 3
def make_model():
    return torch.nn.Embedding(10, 2)
def loss(output, target):
    return output.sum(dim=(1, 2)) + 7.0 * target
def metrics(output, target):
    return {"sevens": 7.0 * target}
"""


def test_the_users_own_model_loss_and_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_data_parts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = {key: f"own_data_parts:{value}" for key, value in (("model", "make_model"), ("loss", "loss"))}
    tokens = torch.ones(5, 3, dtype=torch.int64)
    task = made(tokens, CLASSES, **names, metrics="own_data_parts:metrics")
    assert type(task.make_model()) is torch.nn.Embedding
    assert task.loss(torch.zeros(2, 3, 2), torch.tensor([0, 1])).tolist() == [0.0, 7.0]
    assert task.metrics(torch.zeros(2, 3, 2), torch.tensor([0, 1]))["sevens"].tolist() == [0.0, 7.0]
    with pytest.raises(
        InputError, match=r"^task.options.loss: 'own_data_parts:NUMBER' is int, which cannot be called$"
    ):
        made(loss="own_data_parts:NUMBER")
    with pytest.raises(InputError, match=r"^task.options.model: module 'own_data_parts' has no 'absent'$"):
        made(model="own_data_parts:absent")


def test_data_without_a_usual_model() -> None:
    with pytest.raises(
        InputError, match=r"^task 'mine' has x of shape \(3,\) \(torch.int64\) .*set task.options.model"
    ):
        made(torch.ones(5, 3, dtype=torch.int64))
    with pytest.raises(InputError, match=r"^task.options.hidden must hold widths of 1 or more, got \[0\]$"):
        made(hidden=[0])
