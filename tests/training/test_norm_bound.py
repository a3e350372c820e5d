import math
import pickle

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.training.aggregation import MeanAggregator
from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.norm_bound import NormBoundedAggregator
from pocketfleet.training.update import Update

Floats = npt.NDArray[np.float64]


def updates_of(count: int, *, seed: int = 1) -> Update:
    values = torch.from_numpy(normal(draw_key(seed, "update", np.arange(count)), 14)).to(torch.float32)
    return Update({"w": values[:, :6].reshape(count, 2, 3), "b": values[:, 6:10]}, {"mean": values[:, 10:]})


def added(
    updates: Update, *, max_norm: float, weight: npt.ArrayLike = 1.0, scale: npt.ArrayLike = 1.0
) -> NormBoundedAggregator:
    count = len(next(iter(updates.delta.values())))
    aggregator = NormBoundedAggregator(max_norm)
    aggregator.add_many(
        updates, weight=np.broadcast_to(weight, count).astype(float), scale=np.broadcast_to(scale, count).astype(float)
    )
    return aggregator


def slow_mean(updates: Update, *, max_norm: float, weight: Floats, scale: Floats) -> list[float]:
    """Sun et al. 2019, read aloud, of the delta alone."""
    total = [0.0] * 10
    for row in range(len(weight)):
        delta = [scale[row] * float(value) for name in ("w", "b") for value in updates.delta[name][row].ravel()]
        norm = math.sqrt(math.fsum(value * value for value in delta))
        shorter = max(1.0, norm / max_norm)
        for place, value in enumerate(delta):
            total[place] += weight[row] * value / shorter
    return [value / weight.sum() for value in total]


@given(
    count=st.integers(1, 6),
    seed=st.integers(0, 2**32),
    max_norm=st.sampled_from([0.1, 2.0, 3.2, 100.0]),
    weight=st.lists(st.floats(0.5, 9.0), min_size=6, max_size=6),
    scale=st.lists(st.floats(0.1, 2.0), min_size=6, max_size=6),
)
@settings(deadline=None)
def test_the_mean_is_the_papers(
    count: int, seed: int, max_norm: float, weight: list[float], scale: list[float]
) -> None:
    updates, weights, scales = updates_of(count, seed=seed), np.array(weight[:count]), np.array(scale[:count])
    mean = added(updates, max_norm=max_norm, weight=weights, scale=scales).result()
    got = torch.cat([mean.delta["w"].ravel(), mean.delta["b"]]).tolist()
    expected = slow_mean(updates, max_norm=max_norm, weight=weights, scale=scales)
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-12)
    # Buffers are no differences of weights.
    buffers = updates.buffers["mean"].to(torch.float64)
    torch.testing.assert_close(mean.buffers["mean"], (torch.from_numpy(weights) @ buffers) / weights.sum())


def test_a_bound_that_nobody_reaches_is_the_mean_to_the_bit() -> None:
    updates, ones = updates_of(5), np.ones(5)
    plain = MeanAggregator()
    plain.add_many(updates, weight=ones, scale=ones)
    for name, value in added(updates, max_norm=1e6).result().delta.items():
        assert torch.equal(value, plain.result().delta[name])


def test_no_liar_moves_the_mean_further_than_the_bound() -> None:
    updates = updates_of(5)
    for value in updates.delta.values():
        value[2] *= -1e30
    mean = added(updates, max_norm=2.0).result()
    assert math.hypot(*torch.cat([mean.delta["w"].ravel(), mean.delta["b"]]).tolist()) <= 2.0


def test_an_update_that_is_not_finite_is_left_out() -> None:
    updates = updates_of(3)
    updates.delta["w"][1] = float("nan")
    updates.delta["b"][2] = float("inf")
    aggregator = added(updates, max_norm=1.0, weight=[1.0, 0.0, 0.0])
    alone = added(updates_of(1), max_norm=1.0)
    assert aggregator.num_updates == 1
    assert torch.equal(aggregator.result().delta["w"], alone.result().delta["w"])


def test_parts_of_other_processes_are_merged() -> None:
    updates = updates_of(6)
    whole = NormBoundedAggregator(1.5)
    for rows in (slice(0, 2), slice(2, 2), slice(2, 6)):
        part = Update(*({name: value[rows] for name, value in group.items()} for group in updates.groups().values()))
        whole.merge(pickle.loads(pickle.dumps(added(part, max_norm=1.5))))
    assert whole.num_updates == 6
    expected = added(updates, max_norm=1.5).result()
    for name, value in whole.result().delta.items():
        torch.testing.assert_close(value, expected.delta[name], rtol=1e-12, atol=1e-15)


def test_without_updates_there_is_no_mean() -> None:
    with pytest.raises(ValueError, match=r"^no update was added$"):
        NormBoundedAggregator(1.0).result()
