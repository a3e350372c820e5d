import pytest
import torch

from pocketfleet.training.task import check_task, initial_model, load_task
from pocketfleet.training.tasks.boston import BostonTask, make_task


@pytest.fixture(scope="module")
def boston() -> BostonTask:
    return make_task()


def rows(task: BostonTask) -> list[tuple[float, ...]]:
    """Features and price of every tract, training then test."""
    parts = (task.train_examples(), task.test_examples())
    return [tuple(row) for part in parts for row in torch.cat([part.x, part.y], dim=1).tolist()]


def test_506_tracts_of_13_features_in_two_disjoint_parts(boston: BostonTask) -> None:
    train, test = boston.train_examples(), boston.test_examples()
    # A fifth of 506 is 101.2.
    assert (tuple(train.x.shape), tuple(train.y.shape)) == ((405, 13), (405, 1))
    assert (tuple(test.x.shape), tuple(test.y.shape)) == ((101, 13), (101, 1))
    assert (train.x.dtype, train.y.dtype) == (torch.float32, torch.float32)
    # No tract of this table occurs twice, so 506 different rows are each of them once.
    assert len(set(rows(boston))) == 506


def test_the_table_is_harrison_and_rubinfelds(boston: BostonTask) -> None:
    # Its first tract as published: CRIM 0.00632, ZN 18, INDUS 2.31, ..., B 396.9, LSTAT 4.98, price 24.
    first = (0.00632, 18.0, 2.31, 0.0, 0.538, 6.575, 65.2, 4.09, 1.0, 296.0, 15.3, 396.9, 4.98, 24.0)
    table = torch.tensor(rows(boston))
    assert (table - torch.tensor(first)).abs().max(dim=1).values.min() < 1e-5
    # Prices are in thousands of dollars, cut at 50.
    assert (table[:, 13].min().item(), table[:, 13].max().item()) == (5.0, 50.0)


def test_leaving_out_b_drops_that_column_alone(boston: BostonTask) -> None:
    without, full = make_task(leave_out_b=True), boston
    for part in ("train_examples", "test_examples"):
        ours, theirs = getattr(without, part)(), getattr(full, part)()
        assert torch.equal(ours.x, theirs.x[:, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12]])
        assert torch.equal(ours.y, theirs.y)
    # B = 1000 * (share - 0.63)^2 is 396.9 where the share is 0, as in the first published tract: column 11 of 13.
    columns = [i for i in range(13) if full.train_examples().x[:, i].max() == torch.tensor(396.9)]
    assert columns == [11]


def test_the_split_is_drawn_by_its_seed(boston: BostonTask) -> None:
    same, other = make_task(split_seed=0), make_task(split_seed=1)
    assert torch.equal(same.test_examples().x, boston.test_examples().x)
    assert not torch.equal(other.test_examples().x, boston.test_examples().x)
    assert sorted(rows(other)) == sorted(rows(boston))


@pytest.mark.parametrize(
    ("leave_out_b", "parameters"),
    # 13 * 32 + 32, 32 * 24 + 24, 24 * 16 + 16, 16 + 1: 448 + 792 + 400 + 17; one feature fewer: 32 fewer.
    [(False, 1657), (True, 1625)],
)
def test_the_model(leave_out_b: bool, parameters: int) -> None:
    task = make_task(leave_out_b=leave_out_b)
    model = initial_model(task, seed=0)
    assert sum(value.numel() for value in model.parameters()) == parameters
    weights = check_task(task, model, task.train_examples())
    assert (list(weights.buffers), list(weights.frozen)) == ([], ["0.mean", "0.scale"])
    assert model(task.test_examples().x).shape == (101, 1)


def test_loss_and_metrics_per_example(boston: BostonTask) -> None:
    output, target = torch.tensor([[20.0], [30.0]]), torch.tensor([[23.0], [29.5]])
    # Off by 3 and 0.5.
    assert boston.loss(output, target).tolist() == [9.0, 0.25]
    metrics = boston.metrics(output, target)
    assert {name: value.tolist() for name, value in metrics.items()} == {"mse": [9.0, 0.25], "mae": [3.0, 0.5]}


def test_it_is_a_packaged_task() -> None:
    assert load_task("boston").name == "boston"
