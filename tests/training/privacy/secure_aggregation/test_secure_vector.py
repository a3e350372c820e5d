import numpy as np
import pytest
import torch
from secure_group import SecureGroup, complete

from pocketfleet.errors import InputError
from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.privacy.secure_aggregation.fixed_point import FixedPoint
from pocketfleet.training.privacy.secure_aggregation.secure_vector import SecureVector
from pocketfleet.training.update import Update

GRID = FixedPoint(value_range=0.5, bits=16, max_weight=50, cohort=5)
WEIGHTS = [3, 50, 7, 1, 20]


def drawn_updates(count: int = 5) -> list[Update]:
    """Of 150 values each, their standard deviation 0.1."""
    rows = normal(draw_key(3, "test updates", np.arange(count)), 150).astype(np.float32) * np.float32(0.1)
    return [
        Update({"b": torch.from_numpy(row[:30].reshape(5, 6)), "a": torch.from_numpy(row[30:])}, {}) for row in rows
    ]


def flat(update: Update) -> np.ndarray:
    return np.concatenate([update.delta[name].numpy().reshape(-1).astype(np.float64) for name in ("a", "b")])


def exact_mean(updates: list[Update], weights: list[int]) -> np.ndarray:
    return np.array(weights, np.float64) @ np.array([flat(one) for one in updates]) / sum(weights)


def summed(form: SecureVector, updates: list[Update], seed: int = 9) -> np.ndarray:
    vectors = [form.encode(one, weight=weight, shared_seed=seed) for one, weight in zip(updates, WEIGHTS, strict=False)]
    total = np.zeros_like(vectors[0])
    for vector in vectors:
        total += vector
    return total & total.dtype.type(form.settings().ring - 1)


def test_the_mean_of_a_real_group_is_that_of_those_in_its_sum() -> None:
    updates = drawn_updates()
    form = SecureVector(GRID, updates[0])
    assert (form.coordinates, form.settings().vector_length, form.settings().ring_bytes) == (150, 152, 3)
    group = SecureGroup(complete(5), form.settings(), [0, 0, 2, 0, 3])
    group.vectors = np.array(
        [form.encode(one, weight=weight, shared_seed=9) for one, weight in zip(updates, WEIGHTS, strict=True)]
    )
    total, places = group.sum()
    mean = form.decode(total, shared_seed=9)
    assert places.tolist() == [0, 1, 3, 4]
    assert (mean.weight, mean.clipped) == (74, 0)
    exact = exact_mean([updates[place] for place in places], [WEIGHTS[place] for place in places])
    assert np.abs(flat(mean.update) - exact).max() <= GRID.step / 2 + 1e-12
    assert {name: (value.shape, value.dtype) for name, value in mean.update.delta.items()} == {
        "b": ((5, 6), torch.float64),
        "a": ((120,), torch.float64),
    }
    assert list(mean.update.delta) == ["b", "a"]
    assert (mean.update.buffers, mean.update.extra) == ({}, {})


def test_a_rotated_mean_is_the_mean_but_for_the_grid() -> None:
    """150 values are padded to 192. A rotation keeps the norm: of 192 errors of up to half a step, sqrt(192) / 2."""
    updates = drawn_updates()
    form = SecureVector(GRID, updates[0], rotation=True)
    assert form.coordinates == 192
    mean = form.decode(summed(form, updates), shared_seed=9)
    error = np.linalg.norm(flat(mean.update) - exact_mean(updates, WEIGHTS))
    assert error <= GRID.step * np.sqrt(192) / 2 + 1e-5
    wrong = form.decode(summed(form, updates), shared_seed=8)
    assert np.linalg.norm(flat(wrong.update) - exact_mean(updates, WEIGHTS)) > 0.1


def test_a_rotation_keeps_an_outlier_inside_the_range() -> None:
    """3.0 among zeros is beyond 0.5; spread over a block of 128 it is 3 / sqrt(128) = 0.27."""
    delta = torch.zeros(128)
    delta[5] = 3.0
    like = Update({"w": delta}, {})
    plain, turned = SecureVector(GRID, like), SecureVector(GRID, like, rotation=True)
    assert plain.decode(plain.encode(like, weight=1, shared_seed=1), shared_seed=1).clipped == 1
    mean = turned.decode(turned.encode(like, weight=1, shared_seed=1), shared_seed=1)
    assert mean.clipped == 0
    assert abs(float(mean.update.delta["w"][5]) - 3.0) < 128 * GRID.step


def test_a_few_coordinates_are_the_same_of_all_and_their_mean_is_scaled_up() -> None:
    updates = drawn_updates()
    form = SecureVector(GRID, updates[0], ratio=0.1)
    assert form.coordinates == 15
    mean = flat(form.decode(summed(form, updates), shared_seed=9).update)
    exact = exact_mean(updates, WEIGHTS)
    sent = np.flatnonzero(mean)
    assert len(sent) == 15
    assert np.abs(mean[sent] - 10.0 * exact[sent]).max() <= 10.0 * GRID.step / 2 + 1e-12


def test_over_the_seeds_the_mean_of_a_few_rotated_coordinates_is_the_mean_of_all() -> None:
    """Each seed errs by about sqrt(d / k - 1) = 1.7 times the norm; 400 seeds by a twentieth of that."""
    updates = drawn_updates()
    form = SecureVector(GRID, updates[0], rotation=True, ratio=0.25)
    seeds = range(400)
    mean = np.mean([flat(form.decode(summed(form, updates, seed), shared_seed=seed).update) for seed in seeds], axis=0)
    exact = exact_mean(updates, WEIGHTS)
    assert np.linalg.norm(mean - exact) < 1.3 * (1.74 / 20) * np.linalg.norm(exact)


def test_dice_round_by_their_seed() -> None:
    update = drawn_updates(1)[0]
    form = SecureVector(FixedPoint(value_range=0.5, bits=3, max_weight=1, cohort=2), update)
    one, two, again = (form.encode(update, weight=1, shared_seed=0, dice_seed=seed).tolist() for seed in (1, 2, 1))
    nearest = form.encode(update, weight=1, shared_seed=0).tolist()
    assert one == again
    assert one != two
    assert nearest not in (one, two)


def test_a_weight_above_the_most_counts_as_that_and_an_update_not_finite_for_nothing() -> None:
    update = drawn_updates(1)[0]
    form = SecureVector(GRID, update)
    most = form.encode(update, weight=50, shared_seed=0)
    assert form.encode(update, weight=1000, shared_seed=0).tolist() == most.tolist()
    broken = Update({name: value.clone() for name, value in update.delta.items()}, {})
    broken.delta["a"][3] = torch.nan
    assert not form.encode(broken, weight=5, shared_seed=0).any()
    mean = form.decode(form.encode(broken, weight=5, shared_seed=0), shared_seed=0)
    assert mean.weight == 0
    assert not flat(mean.update).any()


@pytest.mark.parametrize(
    ("update", "match"),
    [
        (
            Update({"w": torch.zeros(2)}, {"norm.mean": torch.zeros(2)}),
            r"batch-norm statistics \(norm.mean\).*GroupNorm",
        ),
        (Update({"w": torch.zeros(2)}, {}, {"variate": torch.zeros(2)}), r"reports more \(variate\).*fedavg"),
        (Update({"w": torch.zeros(2, dtype=torch.float64)}, {}), "'w' is float64"),
    ],
)
def test_updates_of_more_than_a_float32_delta_are_refused(update: Update, match: str) -> None:
    with pytest.raises(InputError, match=match):
        SecureVector(GRID, update)
    form = SecureVector(GRID, Update({"w": torch.zeros(2)}, {}))
    with pytest.raises(InputError, match=match):
        form.encode(update, weight=1, shared_seed=0)


@pytest.mark.parametrize("ratio", [0.0, 1.1])
def test_a_ratio_out_of_range_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        SecureVector(GRID, Update({"w": torch.zeros(2)}, {}), ratio=ratio)
