import gc
import pickle
import weakref
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from pocketfleet.training.aggregation import MeanAggregator
from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.update import Update

# Of seven devices; fractions, so that no product with a float32 is exact in float64.
WEIGHTS = (0.3, 1.4, 1.5, 0.9, 0.2, 6.5, 3.5)


def update_of_device(device: int, *, size: int = 500) -> Update:
    values = torch.from_numpy(normal(draw_key(2, "update", device), 2 * size)).to(torch.float32)
    delta = {"w": values[:size].reshape(-1, 10).clone(), "b": values[size : size + 10].clone()}
    return Update(delta, {"mean": values[-10:].clone(), "count": torch.tensor(device * 3)})


def aggregated(devices: Sequence[int]) -> MeanAggregator:
    """Updates of ``devices`` in that order, numbered as they come."""
    aggregator = MeanAggregator()
    for place, device in enumerate(devices):
        aggregator.add(update_of_device(device), device=place, weight=WEIGHTS[device])
    return aggregator


def same_bits(one: Update, other: Update) -> bool:
    pairs = ((one.delta, other.delta), (one.buffers, other.buffers))
    return all(
        ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
        for ours, theirs in pairs
    )


def test_the_mean_is_numpys_float64_mean_in_the_order_of_devices() -> None:
    result = aggregated(range(7)).result()
    for group in ("delta", "buffers"):
        mean = getattr(result, group)
        assert list(mean) == list(getattr(update_of_device(0), group))
        for name, value in mean.items():
            total = np.zeros(value.shape, dtype=np.float64)
            for device, weight in enumerate(WEIGHTS):
                total += getattr(update_of_device(device), group)[name].numpy().astype(np.float64) * weight
            assert value.dtype == torch.float64
            assert np.array_equal(value.numpy(), total / sum(WEIGHTS))


def test_another_order_has_other_bits() -> None:
    # Why the order is prescribed: the same seven updates, last one first.
    forward, backward = aggregated(range(7)).result(), aggregated(range(6, -1, -1)).result()
    assert not same_bits(forward, backward)
    torch.testing.assert_close(forward.delta, backward.delta, rtol=1e-9, atol=1e-12)


def test_a_mean_by_hand() -> None:
    aggregator = MeanAggregator()
    aggregator.add(Update({"w": torch.tensor([1.0, 0.0])}, {"n": torch.tensor(2)}), device=4, weight=1)
    aggregator.add(Update({"w": torch.tensor([5.0, -8.0])}, {"n": torch.tensor(7)}), device=9, weight=3)
    mean = aggregator.result()
    # (1 * 1 + 3 * 5) / 4, (0 - 3 * 8) / 4 and (2 + 3 * 7) / 4: counters are averaged like everything else.
    assert (mean.delta["w"].tolist(), mean.buffers["n"].item()) == ([4.0, -6.0], 5.75)
    assert aggregator.num_updates == 2


def test_one_update_is_its_own_mean() -> None:
    aggregator = MeanAggregator()
    aggregator.add(Update({"w": torch.tensor([3.0])}, {}), device=0, weight=8)
    assert aggregator.result().delta["w"].item() == 3.0


def test_small_updates_beside_a_large_one_are_kept() -> None:
    aggregator = MeanAggregator()
    for device, value in enumerate([2.0**24, 1.0, 1.0]):
        aggregator.add(Update({"w": torch.tensor([value])}, {}), device=device, weight=1)
    # A float32 sum would stay at 2**24.
    assert aggregator.result().delta["w"].item() == (2**24 + 2) / 3


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_is_positive_and_finite(weight: float) -> None:
    aggregator = aggregated(range(3))
    before = aggregator.result()
    with pytest.raises(ValueError, match=rf"^weight must be above 0 and finite, got {weight}$"):
        aggregator.add(update_of_device(3), device=3, weight=weight)
    assert same_bits(aggregator.result(), before)
    assert aggregator.num_updates == 3


@pytest.mark.parametrize("device", [2, 1, 0, -1])
def test_devices_come_in_rising_order(device: int) -> None:
    aggregator = aggregated(range(3))
    before = aggregator.result()
    with pytest.raises(ValueError, match=rf"^devices must come in rising order, got {device} after 2$"):
        aggregator.add(update_of_device(3), device=device, weight=1.0)
    assert same_bits(aggregator.result(), before)
    assert aggregator.num_updates == 3


@pytest.mark.parametrize(
    "update",
    [
        Update({"w": torch.ones(2)}, {}),
        Update({"w": torch.ones(2), "v": torch.ones(2)}, {"s": torch.ones(2)}),
        Update({"v": torch.ones(2)}, {"s": torch.ones(2)}),
        Update({"w": torch.ones(1)}, {"s": torch.ones(2)}),
        Update({"w": torch.ones(2)}, {"s": torch.ones(2, 1)}),
    ],
)
def test_updates_of_another_model_are_rejected(update: Update) -> None:
    aggregator = MeanAggregator()
    aggregator.add(Update({"w": torch.zeros(2)}, {"s": torch.zeros(2)}), device=0, weight=1)
    before = aggregator.result()
    with pytest.raises(ValueError, match=r"^the update of device 5 has other names or shapes than the updates before"):
        aggregator.add(update, device=5, weight=1)
    assert same_bits(aggregator.result(), before)


def test_a_rejected_update_leaves_the_sum_as_if_it_had_not_come() -> None:
    aggregator = aggregated(range(3))
    for device, weight in ((3, 0.0), (2, 1.0)):
        with pytest.raises(ValueError, match=r"must"):
            aggregator.add(update_of_device(6), device=device, weight=weight)
    aggregator.add(update_of_device(3), device=3, weight=WEIGHTS[3])
    assert same_bits(aggregator.result(), aggregated(range(4)).result())


def test_without_updates_there_is_no_mean() -> None:
    with pytest.raises(ValueError, match=r"^no update was added$"):
        MeanAggregator().result()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_updates_stay_the_callers(dtype: torch.dtype) -> None:
    update = Update({"w": torch.tensor([1.0, 2.0], dtype=dtype)}, {"s": torch.tensor([3.0], dtype=dtype)})
    aggregator = MeanAggregator()
    aggregator.add(update, device=0, weight=2)
    aggregator.add(update, device=1, weight=2)
    assert (update.delta["w"].tolist(), update.buffers["s"].tolist()) == ([1.0, 2.0], [3.0])
    update.delta["w"].zero_()
    assert aggregator.result().delta["w"].tolist() == [1.0, 2.0]


def test_a_result_is_a_snapshot() -> None:
    aggregator = aggregated(range(2))
    first = aggregator.result()
    bits = first.delta["w"].clone()
    aggregator.add(update_of_device(2), device=2, weight=WEIGHTS[2])
    assert torch.equal(first.delta["w"], bits)
    assert not torch.equal(aggregator.result().delta["w"], bits)


def test_memory_is_one_float64_model_whatever_the_cohort() -> None:
    aggregator = MeanAggregator()
    gone, sizes = [], []
    for device in range(20):
        update = update_of_device(device, size=5000)
        gone.extend(weakref.ref(value) for value in update.delta.values())
        aggregator.add(update, device=device, weight=1)
        sizes.append(len(pickle.dumps(aggregator)))
        del update
    gc.collect()
    assert [reference() for reference in gone] == [None] * 40
    # 5,000 + 10 deltas, 10 means and a counter in float64 are 40,168 bytes; pickle adds a few names.
    assert min(sizes) > 40_168
    assert max(sizes) < 40_168 + 2_000
