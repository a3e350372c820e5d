import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.training.draws import draw_key, normal, permutation
from pocketfleet.training.robust_aggregation import Median, MultiKrum, RowAggregator, RowRule, TrimmedMean
from pocketfleet.training.robust_rules import coordinate_median, trimmed_mean
from pocketfleet.training.update import Update

RULES: tuple[RowRule, ...] = (Median(), TrimmedMean(ratio=0.2), MultiKrum(byzantine=2))
rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)


def updates_of(devices: npt.ArrayLike, *, size: int = 30) -> Update:
    devices = np.asarray(devices, dtype=np.int64)
    values = torch.from_numpy(normal(draw_key(2, "update", devices), 2 * size)).to(torch.float32)
    delta = {"w": values[:, :size].reshape(len(devices), size // 10, 10), "b": values[:, size : size + 10]}
    return Update(delta, {"mean": values[:, -5:], "count": torch.from_numpy(devices * 3)})


def added(
    aggregator: RowAggregator, devices: npt.ArrayLike, *, updates: Update | None = None, **arguments: npt.ArrayLike
) -> RowAggregator:
    devices = np.asarray(devices, dtype=np.int64)
    ones = np.ones(len(devices))
    given = {"weight": ones, "scale": ones} | {name: np.asarray(value) for name, value in arguments.items()}
    aggregator.add_many(updates_of(devices) if updates is None else updates, **given)
    return aggregator


def flat(update: Update) -> npt.NDArray[np.float64]:
    return np.concatenate([value.numpy().ravel() for group in update.groups().values() for value in group.values()])


@rules
@given(seed=st.integers(0, 2**32), block_bytes=st.integers(1, 5000), cuts=st.lists(st.integers(0, 11), max_size=4))
@settings(deadline=None, max_examples=30)
def test_any_pieces_any_blocks_and_any_order_give_the_same(
    rule: RowRule, seed: int, block_bytes: int, cuts: list[int]
) -> None:
    expected = flat(added(RowAggregator(rule), range(11)).result())
    aggregator = RowAggregator(rule, block_bytes=block_bytes)
    for piece in np.split(np.arange(11), sorted(cuts)):
        added(aggregator, piece)
    assert aggregator.num_updates == 11
    assert np.array_equal(flat(aggregator.result()), expected)
    shuffled = flat(added(RowAggregator(rule), permutation(draw_key(seed, "order"), 11)).result())
    # The mean of whom Krum chooses is a sum in the order of the rows.
    np.testing.assert_allclose(shuffled, expected, rtol=1e-12 if isinstance(rule, MultiKrum) else 0, atol=1e-15)


@rules
def test_workers_rows_in_memory_and_the_main_process_file_give_the_same_bits(rule: RowRule, tmp_path: Path) -> None:
    main = RowAggregator(rule, folder=tmp_path, block_bytes=700)
    for devices in ([0, 1, 2], [3, 4], [], [5, 6, 9]):
        main.merge(pickle.loads(pickle.dumps(added(RowAggregator(rule), devices))))
    expected = added(RowAggregator(rule), [0, 1, 2, 3, 4, 5, 6, 9]).result()
    assert np.array_equal(flat(main.result()), flat(expected))


@rules
def test_a_result_has_the_names_and_shapes_of_an_update_in_float64(rule: RowRule) -> None:
    result = added(RowAggregator(rule), range(9)).result()
    one = updates_of([0])
    for group in ("delta", "buffers"):
        assert list(getattr(result, group)) == list(getattr(one, group))
        for name, value in getattr(result, group).items():
            assert (value.shape, value.dtype) == (getattr(one, group)[name].shape[1:], torch.float64)


@pytest.mark.parametrize(
    ("rule", "plain"),
    [(Median(), coordinate_median), (TrimmedMean(ratio=0.2), lambda block: trimmed_mean(block, ratio=0.2))],
    ids=["median", "trimmed"],
)
def test_a_coordinates_rule_is_applied_to_deltas_and_buffers(rule: RowRule, plain: Any) -> None:  # noqa: ANN401
    result = added(RowAggregator(rule), range(9)).result()
    everyone = updates_of(range(9))
    for group in ("delta", "buffers"):
        for name, value in getattr(everyone, group).items():
            columns = value.numpy().reshape(9, -1).astype(np.float32)
            assert np.array_equal(getattr(result, group)[name].numpy().ravel(), plain(columns))


def test_krum_leaves_out_liars_with_their_buffers() -> None:
    devices = np.arange(9)
    updates = updates_of(devices)
    for value in updates.delta.values():
        value[[2, 5]] *= -50
    result = added(RowAggregator(MultiKrum(byzantine=2)), devices, updates=updates).result()
    honest = [0, 1, 3, 4, 6, 7, 8]
    for group in ("delta", "buffers"):
        for name, value in getattr(updates, group).items():
            torch.testing.assert_close(getattr(result, group)[name], value[honest].to(torch.float64).mean(dim=0))


def test_what_else_an_algorithm_reports_is_combined_alike() -> None:
    values = normal(draw_key(5, "extra", np.arange(9)), 3).astype(np.float32)
    updates = updates_of(range(9))
    updates.extra["variate"] = torch.from_numpy(values)
    result = added(RowAggregator(Median()), range(9), updates=updates).result()
    assert np.array_equal(result.extra["variate"].numpy(), coordinate_median(values))


def test_krum_does_not_look_at_buffers() -> None:
    devices = np.arange(9)
    updates = updates_of(devices)
    updates.buffers["mean"][4] = 1e6
    chosen = added(RowAggregator(MultiKrum(byzantine=2)), devices, updates=updates).result()
    expected = added(RowAggregator(MultiKrum(byzantine=2)), devices).result()
    assert torch.equal(chosen.delta["w"], expected.delta["w"])


@rules
def test_one_update_is_its_own_result(rule: RowRule) -> None:
    result = added(RowAggregator(rule), [7]).result()
    one = updates_of([7])
    assert torch.equal(result.delta["w"], one.delta["w"][0].to(torch.float64))
    assert result.buffers["count"].item() == 21


@rules
def test_weights_do_not_count_but_for_zero(rule: RowRule) -> None:
    updates = updates_of([0, 1, 2, 3, 4, 5])
    updates.delta["w"][3] = float("nan")
    aggregator = added(RowAggregator(rule), range(6), updates=updates, weight=[1.0, 9.0, 0.5, 0.0, 7.0, 1e9])
    assert aggregator.num_updates == 5
    expected = added(RowAggregator(rule), [0, 1, 2, 4, 5]).result()
    assert np.array_equal(flat(aggregator.result()), flat(expected))


def test_scale_is_of_deltas_alone() -> None:
    result = added(RowAggregator(Median()), [0], scale=[0.25]).result()
    one = updates_of([0])
    assert torch.equal(result.delta["b"], one.delta["b"][0].to(torch.float64) / 4)
    assert torch.equal(result.buffers["mean"], one.buffers["mean"][0].to(torch.float64))


def test_a_float64_model_keeps_its_digits() -> None:
    values = torch.from_numpy(normal(draw_key(4, "double", np.arange(3)), 6))
    result = added(RowAggregator(Median()), range(3), updates=Update({"w": values}, {})).result()
    assert torch.equal(result.delta["w"], values.median(dim=0).values)


@rules
def test_updates_stay_the_callers(rule: RowRule) -> None:
    updates = updates_of(range(5))
    aggregator = added(RowAggregator(rule), range(5), updates=updates, scale=np.full(5, 0.5))
    before = flat(aggregator.result())
    assert torch.equal(updates.delta["w"], updates_of(range(5)).delta["w"])
    updates.delta["w"].zero_()
    assert np.array_equal(flat(aggregator.result()), before)


@pytest.mark.parametrize(
    "update",
    [
        Update({"w": torch.ones(1, 2)}, {}),
        Update({"v": torch.ones(1, 2)}, {"s": torch.ones(1, 2)}),
        Update({"w": torch.ones(1, 1)}, {"s": torch.ones(1, 2)}),
        Update({"w": torch.ones(1, 2)}, {"s": torch.ones(1, 2, 1)}),
        Update({"w": torch.ones(1, 2, dtype=torch.float64)}, {"s": torch.ones(1, 2)}),
    ],
)
def test_updates_of_another_model_are_rejected(update: Update) -> None:
    aggregator, other = RowAggregator(Median()), RowAggregator(Median())
    first = Update({"w": torch.zeros(1, 2)}, {"s": torch.zeros(1, 2)})
    added(aggregator, [0], updates=first)
    added(other, [5], updates=update)
    for reject in (lambda: added(aggregator, [5], updates=update), lambda: aggregator.merge(other)):
        with pytest.raises(
            ValueError, match=r"^updates have other names, shapes or types than the updates before them$"
        ):
            reject()
    assert aggregator.result().delta["w"].tolist() == [0.0, 0.0]


def test_without_updates_there_is_no_result() -> None:
    aggregator = added(RowAggregator(Median()), [3], weight=[0.0])
    with pytest.raises(ValueError, match=r"^no update was added$"):
        aggregator.result()


@rules
def test_memory_is_a_block_whatever_the_cohort_and_the_model(rule: RowRule, tmp_path: Path) -> None:
    # 60 updates of 50,000 float32 are 12 MB; a block is 100 kB as float64.
    aggregator = RowAggregator(rule, folder=tmp_path, block_bytes=100_000)
    tracemalloc.start()
    for device in range(60):
        added(aggregator, [device], updates=Update({"w": torch.full((1, 50_000), float(device % 7))}, {}))
    result = aggregator.result()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The result itself, in float64, is 400 kB, and is handed out as a copy; then some blocks.
    assert peak < 2 * 400_000 + 10 * 100_000
    assert 0.0 <= result.delta["w"].min() <= result.delta["w"].max() <= 6.0
