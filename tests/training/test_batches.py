import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.training.batches import BatchTable, batch_indices, examples_processed, steps_of_epochs
from pocketfleet.training.draws import draw_key, permutation

counts = st.integers(1, 40)
sizes = st.integers(1, 50)
seeds = st.integers(0, 2**63 - 1)


def all_batches(num_examples: int, *, steps: int, batch_size: int, batch_seed: int) -> list[list[int]]:
    batches = batch_indices(num_examples, steps=steps, batch_size=batch_size, batch_seed=batch_seed)
    return [batch.tolist() for batch in batches]


def test_two_epochs_of_ten_examples() -> None:
    batches = all_batches(10, steps=6, batch_size=4, batch_seed=3)
    first, second = (permutation(draw_key(3, "epoch", epoch), 10).tolist() for epoch in (0, 1))
    assert batches == [first[:4], first[4:8], first[8:], second[:4], second[4:8], second[8:]]
    assert first != second


def test_steps_of_epochs_rounds_the_last_batch_up() -> None:
    # 10 = 4 + 4 + 2: three steps an epoch.
    assert steps_of_epochs(10, epochs=1, batch_size=4) == 3
    assert steps_of_epochs(10, epochs=5, batch_size=4) == 15
    assert steps_of_epochs(8, epochs=2, batch_size=4) == 4
    assert steps_of_epochs(3, epochs=2, batch_size=16) == 2
    assert steps_of_epochs(0, epochs=3, batch_size=4) == 0


def test_examples_processed_of_ten_in_fours() -> None:
    # Batches of 4, 4, 2, 4, 4, 2, ...: running totals.
    totals = [examples_processed(10, steps=steps, batch_size=4) for steps in range(8)]
    assert totals == [0, 4, 8, 10, 14, 18, 20, 24]


@given(num_examples=counts, epochs=st.integers(0, 4), batch_size=sizes, seed=seeds)
@settings(deadline=None)
def test_each_epoch_visits_every_example_once(num_examples: int, epochs: int, batch_size: int, seed: int) -> None:
    steps = steps_of_epochs(num_examples, epochs=epochs, batch_size=batch_size)
    batches = all_batches(num_examples, steps=steps, batch_size=batch_size, batch_seed=seed)
    assert len(batches) == steps
    visited = [index for batch in batches for index in batch]
    # Flat, the batches are whole epochs one after the other.
    assert len(visited) == epochs * num_examples
    for epoch in range(epochs):
        assert sorted(visited[epoch * num_examples : (epoch + 1) * num_examples]) == list(range(num_examples))


@given(num_examples=counts, steps=st.integers(0, 60), batch_size=sizes, seed=seeds)
@settings(deadline=None)
def test_examples_processed_are_those_of_the_batches(num_examples: int, steps: int, batch_size: int, seed: int) -> None:
    batches = all_batches(num_examples, steps=steps, batch_size=batch_size, batch_seed=seed)
    assert examples_processed(num_examples, steps=steps, batch_size=batch_size) == sum(map(len, batches))
    # Only the last batch of an epoch is short; it holds what is left.
    steps_per_epoch = steps_of_epochs(num_examples, epochs=1, batch_size=batch_size)
    for step, batch in enumerate(batches):
        last = step % steps_per_epoch == steps_per_epoch - 1
        assert len(batch) == (num_examples - (steps_per_epoch - 1) * batch_size if last else batch_size)


@given(num_examples=counts, steps=st.integers(0, 30), more=st.integers(0, 30), batch_size=sizes, seed=seeds)
@settings(deadline=None)
def test_fewer_steps_are_a_prefix(num_examples: int, steps: int, more: int, batch_size: int, seed: int) -> None:
    longer = all_batches(num_examples, steps=steps + more, batch_size=batch_size, batch_seed=seed)
    assert all_batches(num_examples, steps=steps, batch_size=batch_size, batch_seed=seed) == longer[:steps]


def test_two_seeds_make_two_orders_and_one_seed_one() -> None:
    one, again, other = (
        list(batch_indices(20, steps=2, batch_size=16, batch_seed=batch_seed)) for batch_seed in (1, 1, 2)
    )
    assert all(batch.dtype == np.int64 for batch in one)
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(one, again, strict=True))
    assert not np.array_equal(one[0], other[0])


def test_no_examples_make_no_batches() -> None:
    assert all_batches(0, steps=0, batch_size=4, batch_seed=0) == []
    with pytest.raises(ValueError, match=r"^no examples to make batches of$"):
        all_batches(0, steps=1, batch_size=4, batch_seed=0)


@settings(max_examples=40, deadline=None)
@given(
    devices=st.lists(st.tuples(st.integers(1, 23), st.integers(1, 12)), min_size=1, max_size=6),
    batch_size=st.integers(1, 9),
)
def test_a_table_of_batches_holds_each_devices_own(devices: list[tuple[int, int]], batch_size: int) -> None:
    counts, steps = (np.array(column) for column in zip(*sorted(devices, key=lambda pair: -pair[1]), strict=True))
    seeds = np.arange(len(devices)) * 1_000_003 + 5
    table = BatchTable(counts, steps=steps, batch_size=batch_size, batch_seed=seeds)
    found: list[list[list[int]]] = [[] for _ in devices]
    for step in range(int(steps.max())):
        active = int((steps > step).sum())
        places, sizes = table.step(step, active)
        assert places.shape == (active, sizes.max())
        for device in range(active):
            size = int(sizes[device])
            found[device].append(places[device, :size].tolist())
            assert (places[device, size:] == places[device, size - 1]).all()
    expected = [
        [rows.tolist() for rows in batch_indices(int(n), steps=int(s), batch_size=batch_size, batch_seed=int(seed))]
        for n, s, seed in zip(counts, steps, seeds, strict=True)
    ]
    assert found == expected
