from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.errors import InputError
from pocketfleet.training.partition import _deal_by_label, held_out_split, held_out_splits, partition

Rows = npt.NDArray[np.int64]
KINDS = ("iid", "dirichlet", "quantity")
kinds = st.sampled_from(KINDS)
seeds = st.integers(0, 2**32)
alphas = st.sampled_from([1e-3, 0.1, 1.0, 100.0])
labels_lists = st.lists(st.integers(-2, 4), min_size=1, max_size=60)


def balanced(*, classes: int, each: int) -> Rows:
    """Labels 0, 1, ..., repeated."""
    return np.tile(np.arange(classes, dtype=np.int64), each)


def split(kind: str, labels: npt.NDArray[Any], **changes: Any) -> list[list[int]]:  # noqa: ANN401
    arguments: dict[str, Any] = {"devices": 5, "seed": 1, "alpha": 0.5} | changes
    parts = partition(kind, labels, **arguments)
    assert all(part.dtype == np.int64 for part in parts)
    return [part.tolist() for part in parts]


@given(kind=kinds, labels=labels_lists, devices=st.integers(1, 20), seed=seeds, alpha=alphas)
@settings(deadline=None)
def test_a_split_gives_every_example_to_one_device(
    kind: str, labels: list[int], devices: int, seed: int, alpha: float
) -> None:
    parts = split(kind, np.array(labels), devices=devices, seed=seed, alpha=alpha)
    assert len(parts) == devices
    assert sorted(row for part in parts for row in part) == list(range(len(labels)))
    if kind != "quantity":
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1


@given(kind=kinds, labels=labels_lists, devices=st.integers(1, 10), count=st.integers(1, 30), seed=seeds, alpha=alphas)
@settings(deadline=None)
def test_a_draw_gives_every_device_so_many_existing_examples(
    kind: str, labels: list[int], devices: int, count: int, seed: int, alpha: float
) -> None:
    parts = split(kind, np.array(labels), devices=devices, seed=seed, alpha=alpha, examples_per_device=count)
    assert [len(part) for part in parts] == [count] * devices
    assert {row for part in parts for row in part} <= set(range(len(labels)))


@given(kind=kinds, devices=st.integers(1, 10), more=st.integers(1, 5), seed=seeds, alpha=alphas)
@settings(deadline=None)
def test_one_more_device_changes_no_other_devices_draw(
    kind: str, devices: int, more: int, seed: int, alpha: float
) -> None:
    labels = balanced(classes=4, each=10)
    few, many = (
        split(kind, labels, devices=count, seed=seed, alpha=alpha, examples_per_device=7)
        for count in (devices, devices + more)
    )
    assert many[:devices] == few


@pytest.mark.parametrize("kind", KINDS)
def test_devices_draw_apart_from_each_other(kind: str) -> None:
    parts = split(kind, balanced(classes=4, each=10), devices=20, examples_per_device=8)
    assert len({tuple(part) for part in parts}) == 20


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("examples_per_device", [0, 8])
def test_a_partition_is_drawn_by_its_seed_alone(kind: str, examples_per_device: int) -> None:
    labels = balanced(classes=4, each=10)
    one, again, other = (split(kind, labels, seed=seed, examples_per_device=examples_per_device) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_iid_sizes_and_order() -> None:
    parts = split("iid", np.zeros(13))
    # 13 over 5 devices: 3, 3, 3 and 2, 2; a shuffle, not the table's own order.
    assert [len(part) for part in parts] == [3, 3, 3, 2, 2]
    assert [row for part in parts for row in part] != list(range(13))


def test_iid_ignores_alpha_and_labels() -> None:
    assert split("iid", np.zeros((13, 1)), alpha=0.1) == split("iid", np.arange(13), alpha=9.0)


def test_more_devices_than_examples_leave_some_without() -> None:
    for kind in ("iid", "dirichlet"):
        sizes = sorted(len(part) for part in split(kind, np.arange(3), devices=5))
        assert sizes == [0, 0, 1, 1, 1]


def distance_from_global(kind: str, *, alpha: float, examples_per_device: int) -> float:
    """Mean over 40 devices of the total variation distance of a device's label shares from all labels' shares."""
    labels = balanced(classes=4, each=1000)
    parts = split(kind, labels, devices=40, alpha=alpha, examples_per_device=examples_per_device)
    shares = np.array([np.bincount(labels[part], minlength=4) / len(part) for part in parts])
    return float(np.abs(shares - 0.25).sum(axis=1).mean() / 2)


@pytest.mark.parametrize("examples_per_device", [0, 100])
def test_dirichlet_skew_grows_as_alpha_falls(examples_per_device: int) -> None:
    distances = [
        distance_from_global("dirichlet", alpha=alpha, examples_per_device=examples_per_device)
        for alpha in (1e6, 10.0, 1.0, 0.1)
    ]
    assert distances == sorted(distances)
    # Device shares of 100 examples off 1/4 by sqrt(3/16 / 100) = 0.043 each even without skew; half the sum of four
    # mean absolute deviations (0.8 of that) is 0.07. One label alone is at a distance of 3/4.
    assert distances[0] < 0.1
    assert distances[-1] > 0.5


def test_a_tiny_alpha_gives_each_device_one_label() -> None:
    labels = balanced(classes=4, each=1000)
    parts = split("dirichlet", labels, devices=40, alpha=1e-3, examples_per_device=50)
    kinds_held = [len(np.unique(labels[part])) for part in parts]
    # With alpha 1/1000 the largest share of four is above 0.999 for all but some two devices in a hundred.
    assert np.mean(np.array(kinds_held) == 1) > 0.85
    # Devices do not all hold the same label.
    assert {int(labels[part[0]]) for part in parts} == {0, 1, 2, 3}


def test_dirichlet_shares_have_the_dirichlet_laws_variance() -> None:
    labels = balanced(classes=4, each=10)
    parts = split("dirichlet", labels, devices=400, alpha=1.0, examples_per_device=200)
    shares = np.array([np.bincount(labels[part], minlength=4) / 200 for part in parts])
    # A share of Dir(1, 1, 1, 1) has mean 1/4 and variance (1/4 * 3/4) / 5 = 0.0375; drawing 200 examples adds
    # E[p (1 - p)] / 200 = (1/4 - 1/16 - 0.0375) / 200 = 0.00075. Over 400 devices: five standard errors of the mean
    # are 5 * sqrt(0.03825 / 400) = 0.049; the variance is met within a third.
    assert np.abs(shares.mean(axis=0) - 0.25).max() < 0.049
    assert np.abs(shares.var(axis=0) / 0.03825 - 1).max() < 1 / 3
    # Within a label every example is as likely: 400 * 200 / 40 = 2,000 times each, with a relative deviation of
    # sqrt(0.0375 / 400) * 4 = 0.039 by the label's share and 1 / sqrt(2000) = 0.022 by the draw, 0.045 in all.
    times = np.bincount(np.concatenate(parts), minlength=40)
    assert np.abs(times / 2000 - 1).max() < 5 * 0.045


def test_a_split_by_label_takes_other_classes_when_its_own_run_out() -> None:
    # One device of 10 examples wants, at alpha 1/1000, hardly anything but one label of which there are 5.
    labels = balanced(classes=2, each=5)
    (part,) = split("dirichlet", labels, devices=1, alpha=1e-3)
    assert sorted(part) == list(range(10))


def test_each_label_is_dealt_in_an_order_of_its_own() -> None:
    # Row numbers 4 * k + label: k in the order in which the one device gets them, for each label.
    (part,) = split("dirichlet", balanced(classes=4, each=10), devices=1)
    orders = {tuple(row // 4 for row in part if row % 4 == label) for label in range(4)}
    assert len(orders) == 4
    assert all(sorted(order) == list(range(10)) for order in orders)


def test_no_device_chooses_last_by_its_number() -> None:
    labels = balanced(classes=4, each=100)
    purity = np.empty((60, 10))
    for seed in range(60):
        parts = split("dirichlet", labels, devices=10, seed=seed, alpha=0.05)
        purity[seed] = [np.bincount(labels[part]).max() / len(part) for part in parts]
    # Whoever chooses late finds its labels gone and gets what is left; chosen in order of number, devices 5 to 9 would
    # be less pure than 0 to 4 by six standard errors of the difference of two means of 300.
    error = purity.std() * (2 / 300) ** 0.5
    assert abs(purity[:, :5].mean() - purity[:, 5:].mean()) < 3 * error


@pytest.mark.parametrize("seed", range(10))
def test_a_share_too_small_to_halve_does_not_run_past_the_last_class(seed: int) -> None:
    # 5e-324 is the smallest number above 0, and 0.6 * 5e-324 rounds up to it. A public draw meets it once in some
    # 100,000 devices, so the shares are given here.
    classes = [np.arange(5), np.arange(5, 10)]
    (part,) = _deal_by_label(classes, np.array([[1.0, 5e-324]]), seed=seed, sizes=np.array([10]))
    assert sorted(part.tolist()) == list(range(10))


def test_labels_need_not_be_dense() -> None:
    dense = np.array([0, 1, 0, 1, 1, 0], dtype=np.uint8)
    sparse = np.array([-7, 900, -7, 900, 900, -7], dtype=np.int16)
    assert split("dirichlet", dense) == split("dirichlet", sparse)


def test_quantity_skew_grows_as_alpha_falls() -> None:
    spreads = []
    for alpha in (1e6, 10.0, 1.0, 0.1):
        sizes = [len(part) for part in split("quantity", np.zeros(10_000), devices=50, alpha=alpha)]
        assert sum(sizes) == 10_000
        spreads.append(float(np.std(sizes)))
    assert spreads == sorted(spreads)
    # Even shares would be 200 each. Shares of Dir(1, ..., 1) have a deviation of nearly their mean (exponential law);
    # at alpha a million only rounding is left.
    assert spreads[0] < 1
    assert 100 < spreads[2] < 400


def test_quantity_is_blind_to_labels() -> None:
    assert split("quantity", np.zeros(40)) == split("quantity", np.arange(40))


@pytest.mark.parametrize(
    ("labels", "got"),
    [
        (np.zeros(6), r"float64 of shape \(6,\)"),
        (np.zeros((6, 1), dtype=np.int64), r"int64 of shape \(6, 1\)"),
        (np.zeros(6, dtype=bool), r"bool of shape \(6,\)"),
    ],
)
@pytest.mark.parametrize("examples_per_device", [0, 3])
def test_dirichlet_needs_class_labels(labels: npt.NDArray[Any], got: str, examples_per_device: int) -> None:
    with pytest.raises(InputError, match=rf'^partition.kind "dirichlet" .* got {got}; use "iid" or "quantity"'):
        partition("dirichlet", labels, devices=2, seed=0, alpha=1.0, examples_per_device=examples_per_device)


@given(count=st.integers(0, 60), seed=seeds, device=st.integers(0, 1000))
@settings(deadline=None)
def test_a_fifth_is_held_out(count: int, seed: int, device: int) -> None:
    # Row numbers of a device are any; these are odd numbers from 1, rising.
    rows = np.arange(count, dtype=np.int64) * 2 + 1
    training, held_out = held_out_split(rows, seed=seed, device=device)
    assert len(held_out) == count // 5
    assert len(training) == count - count // 5
    assert sorted([*training.tolist(), *held_out.tolist()]) == rows.tolist()
    # Both keep the order of the device's rows.
    assert training.tolist() == sorted(training.tolist())
    assert held_out.tolist() == sorted(held_out.tolist())


@given(counts=st.lists(st.integers(0, 30), min_size=1, max_size=5), seed=seeds)
@settings(deadline=None)
def test_many_devices_hold_out_what_each_does(counts: list[int], seed: int) -> None:
    table = np.arange(len(counts) * 30).reshape(len(counts), 30)
    devices = np.arange(len(counts)) + 7
    parts = held_out_splits((table, np.array(counts)), seed=seed, devices=devices)
    for row, (count, device) in enumerate(zip(counts, devices.tolist(), strict=True)):
        each = held_out_split(table[row, :count], seed=seed, device=device)
        for (padded, kept), rows in zip(parts, each, strict=True):
            assert padded[row, : kept[row]].tolist() == rows.tolist()


def test_under_five_examples_nothing_is_held_out() -> None:
    assert [len(held_out_split(np.arange(count), seed=0, device=0)[1]) for count in (0, 1, 4, 5, 9, 10)] == [
        *(0, 0, 0),
        *(1, 1, 2),
    ]


def test_what_is_held_out_is_drawn_by_seed_and_device() -> None:
    rows = np.arange(50)
    drawn = {
        (seed, device): held_out_split(rows, seed=seed, device=device)[1].tolist()
        for seed in (0, 1)
        for device in (0, 1)
    }
    again = {(seed, device): held_out_split(rows, seed=seed, device=device)[1].tolist() for seed, device in drawn}
    assert drawn == again
    # 4 draws of 10 out of 50 (some 10**10 ways): no two alike.
    assert len({tuple(held_out) for held_out in drawn.values()}) == 4
