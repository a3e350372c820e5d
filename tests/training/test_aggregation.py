import gc
import itertools
import pickle
import weakref
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.training.aggregation import MeanAggregator
from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.update import Update

# Of seven devices; fractions, so that no product with a float32 is exact in float64.
WEIGHTS = np.array([0.3, 1.4, 1.5, 0.9, 0.2, 6.5, 3.5])


def updates_of(devices: Sequence[int], *, size: int = 500) -> Update:
    """Stacked updates, a function of each device's number alone."""
    numbers = normal(draw_key(2, "update", np.array(devices)), 2 * size)
    values = torch.from_numpy(numbers).to(torch.float32).reshape(len(devices), 2 * size)
    delta = {"w": values[:, :size].reshape(len(devices), -1, 10).clone(), "b": values[:, size : size + 10].clone()}
    buffers = {"mean": values[:, -10:].clone(), "count": torch.tensor(devices) * 3}
    return Update(delta, buffers, {"control": values[:, size : size + 3].clone()})


def aggregated(*chunks: Sequence[int]) -> MeanAggregator:
    aggregator = MeanAggregator()
    for devices in chunks:
        aggregator.add_many(updates_of(devices), weight=WEIGHTS[list(devices)], scale=np.ones(len(devices)))
    return aggregator


def same_bits(one: Update, other: Update) -> bool:
    return all(
        ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
        for ours, theirs in zip(one.groups().values(), other.groups().values(), strict=True)
    )


def assert_close(one: Update, other: Update) -> None:
    torch.testing.assert_close(one.groups(), other.groups(), rtol=1e-12, atol=1e-12)


def test_the_mean_is_numpys_float64_mean() -> None:
    result, everyone = aggregated(range(7)).result(), updates_of(range(7))
    for group, tensors in result.groups().items():
        for name, value in tensors.items():
            given = getattr(everyone, group)[name].numpy().astype(np.float64)
            assert value.dtype == torch.float64
            np.testing.assert_allclose(
                value.numpy(), np.average(given, axis=0, weights=WEIGHTS), rtol=1e-12, atol=1e-12
            )
    assert result.delta["w"].shape == (50, 10)


def test_a_mean_by_hand() -> None:
    updates = Update({"w": torch.tensor([[1.0, 0.0], [5.0, -8.0]])}, {"n": torch.tensor([2, 7])})
    aggregator = MeanAggregator()
    aggregator.add_many(updates, weight=np.array([1.0, 3.0]), scale=np.ones(2))
    mean = aggregator.result()
    # (1 * 1 + 3 * 5) / 4, (0 - 3 * 8) / 4 and (2 + 3 * 7) / 4: counters are averaged like everything else.
    assert (mean.delta["w"].tolist(), mean.buffers["n"].item()) == ([4.0, -6.0], 5.75)
    assert aggregator.num_updates == 2


def test_a_scale_moves_the_delta_and_neither_its_share_nor_its_statistics() -> None:
    updates = Update({"w": torch.tensor([8.0, 2.0])}, {"s": torch.tensor([4.0, 0.0])})
    aggregator = MeanAggregator()
    aggregator.add_many(updates, weight=np.array([1.0, 1.0]), scale=np.array([0.25, 1.0]))
    # A quarter of 8 and 2 are 2 in the mean; so are 4 and 0.
    assert (aggregator.result().delta["w"].item(), aggregator.result().buffers["s"].item()) == (2.0, 2.0)


def test_small_updates_beside_a_large_one_are_kept() -> None:
    aggregator = MeanAggregator()
    values = torch.tensor([[2.0**24], [1.0], [1.0]])
    aggregator.add_many(Update({"w": values}, {}), weight=np.ones(3), scale=np.ones(3))
    # A float32 sum would stay at 2**24.
    assert aggregator.result().delta["w"].item() == (2**24 + 2) / 3


def test_a_device_of_weight_0_is_left_out_whatever_its_values() -> None:
    updates = updates_of(range(4))
    updates.delta["w"][2] = torch.nan
    aggregator = MeanAggregator()
    aggregator.add_many(updates, weight=WEIGHTS[:4] * [1, 1, 0, 1], scale=np.ones(4))
    assert aggregator.num_updates == 3
    assert_close(aggregator.result(), aggregated([0, 1, 3]).result())
    nobody = MeanAggregator()
    nobody.add_many(updates, weight=np.zeros(4), scale=np.ones(4))
    assert nobody.num_updates == 0


@settings(max_examples=30, deadline=None)
@given(cuts=st.sets(st.integers(1, 6)), merged=st.booleans())
def test_any_chunks_give_the_mean_up_to_rounding(cuts: set[int], merged: bool) -> None:
    bounds = [0, *sorted(cuts), 7]
    chunks = [range(start, stop) for start, stop in itertools.pairwise(bounds)]
    found = aggregated(*chunks)
    if merged:
        found = MeanAggregator()
        for chunk in chunks:
            found.merge(pickle.loads(pickle.dumps(aggregated(chunk))))
        # A part that was made elsewhere gives the bits of one that was made here.
        assert same_bits(found.result(), aggregated(*chunks).result())
    assert found.num_updates == 7
    assert_close(found.result(), aggregated(range(7)).result())


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_is_0_or_more_and_finite(weight: float) -> None:
    aggregator = aggregated(range(3))
    before = aggregator.result()
    with pytest.raises(ValueError, match="weights must be 0 or more and finite"):
        aggregator.add_many(updates_of([3, 4]), weight=np.array([1.0, weight]), scale=np.ones(2))
    assert same_bits(aggregator.result(), before)
    assert aggregator.num_updates == 3


@pytest.mark.parametrize(
    "updates",
    [
        Update({"w": torch.ones(1, 2)}, {}),
        Update({"w": torch.ones(1, 2), "v": torch.ones(1, 2)}, {"s": torch.ones(1, 2)}),
        Update({"v": torch.ones(1, 2)}, {"s": torch.ones(1, 2)}),
        Update({"w": torch.ones(1, 1)}, {"s": torch.ones(1, 2)}),
        Update({"w": torch.ones(1, 2)}, {"s": torch.ones(1, 2, 1)}),
        Update({"w": torch.ones(1, 2)}, {"s": torch.ones(1, 2)}, {"c": torch.ones(1)}),
    ],
)
def test_updates_of_another_model_are_rejected(updates: Update) -> None:
    aggregator, other = MeanAggregator(), MeanAggregator()
    one = {"weight": np.ones(1), "scale": np.ones(1)}
    aggregator.add_many(Update({"w": torch.zeros(1, 2)}, {"s": torch.zeros(1, 2)}), **one)
    other.add_many(updates, **one)
    before = aggregator.result()
    with pytest.raises(ValueError, match="updates have other names or shapes than the updates before"):
        aggregator.add_many(updates, **one)
    with pytest.raises(ValueError, match="updates have other names or shapes than the updates before"):
        aggregator.merge(other)
    assert same_bits(aggregator.result(), before)


def test_without_updates_there_is_no_mean() -> None:
    with pytest.raises(ValueError, match=r"^no update was added$"):
        MeanAggregator().result()
    aggregator = aggregated(range(2))
    before = aggregator.result()
    aggregator.merge(MeanAggregator())
    assert same_bits(aggregator.result(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_updates_stay_the_callers(dtype: torch.dtype) -> None:
    updates = Update({"w": torch.tensor([[1.0, 2.0]], dtype=dtype)}, {"s": torch.tensor([3.0], dtype=dtype)})
    aggregator = MeanAggregator()
    for _ in range(2):
        aggregator.add_many(updates, weight=np.array([2.0]), scale=np.ones(1))
    assert (updates.delta["w"].tolist(), updates.buffers["s"].tolist()) == ([[1.0, 2.0]], [3.0])
    updates.delta["w"].zero_()
    assert aggregator.result().delta["w"].tolist() == [1.0, 2.0]


def test_a_result_is_a_snapshot() -> None:
    aggregator = aggregated(range(2))
    first = aggregator.result()
    bits = first.delta["w"].clone()
    aggregator.add_many(updates_of([2]), weight=WEIGHTS[2:3], scale=np.ones(1))
    assert torch.equal(first.delta["w"], bits)
    assert not torch.equal(aggregator.result().delta["w"], bits)


def test_memory_is_one_float64_model_whatever_the_cohort() -> None:
    aggregator = MeanAggregator()
    gone, sizes = [], []
    for device in range(20):
        updates = updates_of([device], size=5000)
        gone.extend(weakref.ref(value) for value in updates.delta.values())
        aggregator.add_many(updates, weight=np.ones(1), scale=np.ones(1))
        sizes.append(len(pickle.dumps(aggregator)))
        del updates
    gc.collect()
    assert [reference() for reference in gone] == [None] * 40
    # 5,000 + 10 deltas, 10 means, 3 controls and a counter in float64 are 40,192 bytes; pickle adds a few names.
    assert min(sizes) > 40_192
    assert max(sizes) < 40_192 + 2_500
