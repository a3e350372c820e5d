from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from improvement import metric_before_and_after

from pocketfleet.errors import InputError
from pocketfleet.training.task import check_task, initial_model, load_task
from pocketfleet.training.tasks.synthetic import make_task


def sizes(task: object) -> np.ndarray:
    return np.diff(task.user_examples().offsets)


def test_the_population_of_the_published_table_by_default() -> None:
    task = load_task("synthetic")
    users = task.user_examples()
    assert (len(users), tuple(users.x.shape), users.y.dtype) == (1000, (60_000, 60), torch.int64)
    assert set(sizes(task).tolist()) == {60}
    assert (len(task.test_examples()), task.test_examples().x.dtype) == (1000, torch.float32)
    # All classes alike: 6,000 each expected, standard deviation sqrt(60,000 * 0.1 * 0.9) = 73.5.
    assert (torch.bincount(users.y) - 6000).abs().max() < 5 * 73.5


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        # Logistic regression 784-10, and a multilayer perceptron 13-64-32-1.
        ({"features": 784}, 784 * 10 + 10),
        ({"kind": "numbers", "features": 13, "hidden": [64, 32]}, 13 * 64 + 64 + 64 * 32 + 32 + 32 + 1),
    ],
)
def test_models_of_any_width(options: dict[str, object], parameters: int) -> None:
    task = make_task(users=5, tests=10, **options)
    model = initial_model(task, seed=0)
    assert sum(value.numel() for value in model.parameters()) == parameters
    check_task(task, model, task.train_examples())


@pytest.mark.parametrize("kind", ["clusters", "own_models", "numbers"])
def test_more_users_change_nobodys_examples(kind: str) -> None:
    options = {"kind": kind, "features": 7, "examples": 9, "quantity_sigma": 1.0, "draw_seed": 3}
    few, many = (make_task(users=users, tests=4, **options).user_examples() for users in (20, 50))
    for user in (0, 7, 19):
        assert torch.equal(few.of(user).x, many.of(user).x)
        assert torch.equal(few.of(user).y, many.of(user).y)
    other = make_task(users=20, tests=4, **(options | {"draw_seed": 4})).user_examples()
    assert not torch.equal(few.of(0).x[:1], other.of(0).x[:1])


@pytest.mark.parametrize("kind", ["clusters", "own_models", "numbers"])
def test_blocks_do_not_show(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> torch.Tensor:
        task = make_task(kind=kind, users=30, features=5, examples=8, quantity_sigma=1.0, tests=4)
        return torch.cat([task.user_examples().x.flatten(), task.user_examples().y.flatten()])

    whole = made()
    # Blocks of 20 rows, of users who have 8 on average and some more than 20.
    monkeypatch.setattr("pocketfleet.training.tasks.synthetic._BLOCK", 100)
    assert torch.equal(made(), whole)


def test_label_skew() -> None:
    alike, skewed = (make_task(users=300, label_alpha=alpha, tests=10).user_examples() for alpha in (0.0, 0.1))

    def top_share(users: object) -> float:
        shares = [torch.bincount(users.of(user).y).max().item() / 60 for user in range(300)]
        return float(np.mean(shares))

    # Alike: the fullest of ten classes of six expected examples each. At 0.1 a class a user has one or two classes.
    assert top_share(alike) < 0.25
    assert top_share(skewed) > 0.6


def test_feature_shift_is_each_users_own() -> None:
    task = make_task(users=400, classes=2, features=4, examples=50, feature_shift=3.0, tests=10)
    users = task.user_examples()
    means = torch.stack([users.of(user).x.mean(dim=0) for user in range(400)])
    # Centres of the two classes are alike for all: what differs is the shift, and 1/50 of the noise's variance and
    # of the labels'. The standard error of a deviation from 400 users is 3 / sqrt(800) = 0.11.
    assert means.std(dim=0).mean() == pytest.approx(3.0, abs=0.35)


def test_quantity_skew() -> None:
    size = sizes(make_task(users=20_000, features=1, examples=100, quantity_sigma=1.0, tests=10))
    # Log-normal with sigma 1: mean 100, median 100 * exp(-1/2) = 60.7; the mean's standard error is
    # 100 * sqrt(e - 1) / sqrt(20,000) = 0.93.
    assert size.mean() == pytest.approx(100, abs=5)
    assert np.median(size) == pytest.approx(60.7, abs=3)
    assert sizes(make_task(users=2000, features=1, examples=1, quantity_sigma=2.0, tests=10)).min() == 1


def test_own_models_are_those_of_the_paper() -> None:
    task = make_task(kind="own_models", users=200, examples=200, alpha=1.0, beta=2.0, tests=10)
    users = task.user_examples()
    own = [users.of(user).x.to(torch.float64) for user in range(200)]
    # The j-th feature's variance is j ** -1.2, whoever the user is.
    variance = torch.stack([x.var(dim=0) for x in own]).mean(dim=0)
    expected = torch.arange(1, 61, dtype=torch.float64) ** -1.2
    assert ((variance / expected - 1).abs() < 0.05).all()
    # A user's centre is N(B, 1) in each entry, B is N(0, beta): the mean over 60 entries has variance 4 + 1/60. Its
    # relative standard error from 200 users is sqrt(2/200) = 0.1.
    assert torch.stack([x.mean() for x in own]).var() == pytest.approx(4 + 1 / 60, rel=0.5)
    # Each user has a model of its own: a linear model per user fits (200 examples, 61 * 10 weights, separable).
    assert all(len(users.of(user).y.unique()) <= 10 for user in range(200))


def test_alpha_changes_no_label() -> None:
    zero, one = (make_task(kind="own_models", users=20, alpha=alpha, tests=10).user_examples() for alpha in (0.0, 1.0))
    assert torch.equal(zero.x, one.x)
    # But for ties by rounding.
    assert (zero.y == one.y).float().mean() > 0.999


@pytest.mark.parametrize(
    ("options", "better"),
    [
        ({}, lambda before, after: before < 0.3 and after > 0.75),
        ({"kind": "own_models", "users": 30, "beta": 1.0}, lambda before, after: before < 0.3 and after > 0.5),
        ({"kind": "numbers", "features": 13, "hidden": [64, 32]}, lambda before, after: after < 0.2 * before),
    ],
)
def test_it_is_learnt(options: dict[str, object], better: Callable[[float, float], bool]) -> None:
    task = make_task(**options)
    assert better(*metric_before_and_after(task, steps=300, learning_rate=0.01))


def test_a_large_population_lies_in_the_cache_and_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    small = make_task(users=50, features=3, tests=4).user_examples()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("pocketfleet.training.tasks.synthetic._IN_MEMORY_BYTES", 0)
    for _ in range(2):
        mapped = make_task(users=50, features=3, tests=4).user_examples()
        assert torch.equal(mapped.x, small.x)
        assert torch.equal(mapped.y, small.y)
        assert mapped.offsets.tolist() == small.offsets.tolist()
        assert len(list((tmp_path / "pocketfleet").iterdir())) == 1
    make_task(users=50, features=3, tests=4, feature_shift=0.1)
    assert len(list((tmp_path / "pocketfleet").iterdir())) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"users": 0}, "synthetic's users must be 1 or more, got 0"),
        ({"classes": 1}, "synthetic's classes must be 2 or more, got 1"),
        ({"beta": -1.0, "kind": "own_models"}, "synthetic's beta must be 0 or more, got -1.0"),
        ({"quantity_sigma": float("nan")}, "synthetic's quantity_sigma must be 0 or more, got nan"),
        ({"kind": "spiral"}, r"synthetic's kind must be one of \['clusters', 'numbers', 'own_models'\], got 'spiral'"),
        ({"alpha": 1.0}, "synthetic's alpha is for the kind 'own_models', which is 'clusters': leave it out"),
        (
            {"kind": "own_models", "feature_shift": 1.0},
            "is for the kind 'clusters' or 'numbers', which is 'own_models'",
        ),
        ({"hidden": [0]}, r"hidden layers must be 1 or more wide each, got \[0\]"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_task(**options)
