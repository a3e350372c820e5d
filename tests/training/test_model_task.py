import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pocketfleet.errors import InputError
from pocketfleet.training.model_task import ModelTask
from pocketfleet.training.task import Task, check_task, initial_model, task_examples

X, Y = torch.arange(12.0).reshape(4, 3), torch.tensor([0, 1, 1, 0])


def error_rate(output: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"error": (output.argmax(dim=1) != target).to(torch.float32)}


def test_it_is_a_task() -> None:
    task = ModelTask(nn.Linear(3, 2), nn.CrossEntropyLoss(), (X, Y))
    assert isinstance(task, Task)
    assert (task.name, ModelTask(nn.Linear(3, 2), F.cross_entropy, (X, Y), name="mine").name) == ("Linear", "mine")
    for part in (task_examples(task, "train"), task_examples(task, "test")):
        assert torch.equal(part.x, X)
        assert torch.equal(part.y, Y)


def test_models_are_copies_with_the_models_own_weights_whatever_the_seed() -> None:
    model = nn.Linear(3, 2)
    task = ModelTask(model, nn.CrossEntropyLoss(), (X, Y))
    first, second = (initial_model(task, seed=seed) for seed in (0, 1))
    for copy in (first, second):
        assert copy is not model
        assert torch.equal(copy.weight, model.weight)  # type: ignore[arg-type]
    with torch.no_grad():
        first.weight.zero_()  # type: ignore[operator, union-attr]
    assert model.weight.any()
    assert second.weight.any()  # type: ignore[operator, union-attr]


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_a_loss_module_is_taken_as_it_is(reduction: str) -> None:
    task = ModelTask(nn.Linear(3, 2), nn.CrossEntropyLoss(reduction=reduction), (X, Y))
    output = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [0.0, 0.0]])
    assert torch.equal(task.loss(output, Y), F.cross_entropy(output, Y, reduction=reduction))


def test_metrics_are_left_out_or_taken() -> None:
    output = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    bare = ModelTask(nn.Linear(3, 2), nn.CrossEntropyLoss(), (X, Y))
    assert bare.metrics(output, Y) == {}
    check_task(bare, bare.make_model(), bare.train_examples())
    full = ModelTask(nn.Linear(3, 2), nn.CrossEntropyLoss(), (X, Y), metrics=error_rate)
    # Classes 0, 0, 1, 1 against 0, 1, 1, 0.
    assert full.metrics(output, Y)["error"].tolist() == [0.0, 1.0, 0.0, 1.0]
    check_task(full, full.make_model(), full.train_examples())


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((X, Y[:3]), r"as many inputs as targets, got x of shape \(4, 3\) and y of shape \(3,\)"),
        ((X, [0, 1, 1, 0]), r"one tensor each of inputs and targets, got y = list"),
        ((X, Y, Y), r"the example batch must be a pair \(x, y\) of tensors, got 3 values"),
        ((X,), r"must be a pair \(x, y\) of tensors, got 1 values"),
        (X[:2], r"must be a pair \(x, y\) of tensors, got Tensor"),
    ],
)
def test_an_example_batch_that_is_none(batch: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelTask(nn.Linear(3, 2), nn.CrossEntropyLoss(), batch)  # type: ignore[arg-type]
