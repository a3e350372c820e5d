"""How a task's training examples are spread over devices: row numbers, one array a device.

Kinds:

1. ``iid``: the shuffled examples dealt out evenly; sizes differ by one at most.
2. ``dirichlet``: sizes as in ``iid``; each device's label shares are drawn from a symmetric Dirichlet of
   concentration ``alpha`` a class, labels run out as their examples do (after Hsu et al. 2019, arXiv:1909.06335,
   section 3, who scale alpha by the classes' prior: their alpha is ``classes`` times ours).
3. ``quantity``: shares of the examples are drawn from a symmetric Dirichlet of concentration ``alpha``.

With ``examples_per_device = n`` every device draws ``n`` examples with replacement (``dirichlet``: by its label
shares), so that small data can feed a large fleet, and adding a device changes no other device's examples.
``natural`` is not here: such a task names each device's examples itself.
"""

import functools

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincinv

from pocketfleet.errors import InputError
from pocketfleet.training.device_rows import DeviceRows, DrawnRows, ListedRows, PaddedRows
from pocketfleet.training.draws import draw_key, permutation, permutations, uniform

__all__ = ["HELD_OUT_ONE_IN", "dirichlet", "held_out_split", "held_out_splits", "partition"]

Rows = npt.NDArray[np.int64]
# One in five of a device's own examples is held back to measure its models; a device with fewer than five has none.
HELD_OUT_ONE_IN = 5


def partition(
    kind: str, labels: npt.NDArray[np.generic], *, devices: int, seed: int, alpha: float, examples_per_device: int = 0
) -> DeviceRows:
    """Row numbers of each device's examples.

    Args:
        kind: ``iid``, ``dirichlet`` or ``quantity``.
        labels: targets, one row an example; integers ``[examples]`` for ``dirichlet``.
        devices: how many parts.
        seed: the experiment's.
        alpha: concentration, above 0; ignored by ``iid``.
        examples_per_device: 0 splits what there is; ``n`` draws ``n`` with replacement for each device.

    Raises:
        InputError: ``dirichlet`` without class labels.
    """
    if kind == "dirichlet":
        classes = _classes(labels)
        if examples_per_device:
            draw = functools.partial(_draw_by_label, classes, seed=seed, alpha=alpha, count=examples_per_device)
            return DrawnRows(devices, examples_per_device, draw)
        shares = dirichlet(seed, "label_shares", np.arange(devices), parts=len(classes), alpha=alpha)
        return ListedRows.of(_deal_by_label(classes, shares, seed=seed, sizes=_even_sizes(len(labels), devices)))
    if examples_per_device:
        draw = functools.partial(_draw, len(labels), examples_per_device, seed=seed)
        return DrawnRows(devices, examples_per_device, draw)
    sizes = _even_sizes(len(labels), devices)
    if kind == "quantity":
        shares = dirichlet(seed, "quantity", np.arange(1), parts=devices, alpha=alpha)[0]
        sizes = _sizes_of_shares(shares, len(labels))
    order = permutation(draw_key(seed, "deal"), len(labels))
    return ListedRows(np.concatenate([[0], np.cumsum(sizes)]), order)


def held_out_split(rows: Rows, *, seed: int, device: int) -> tuple[Rows, Rows]:
    """Split one device's rows into those it trains on and those it holds out: a fifth, drawn by (seed, device)."""
    is_held = np.zeros(len(rows), dtype=np.bool_)
    is_held[permutation(draw_key(seed, "held_out", device), len(rows))[: len(rows) // HELD_OUT_ONE_IN]] = True
    return rows[~is_held], rows[is_held]


def held_out_splits(rows: PaddedRows, *, seed: int, devices: Rows) -> tuple[PaddedRows, PaddedRows]:
    """``held_out_split`` of several devices: the rows ``[k, n]`` they train on and those they hold out, padded."""
    table, counts = rows
    held = counts // HELD_OUT_ONE_IN
    order = permutations(draw_key(seed, "held_out", devices), counts, table.shape[1])
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(table.shape[1]), order.shape), axis=1)
    is_held = rank < held[:, np.newaxis]
    within = np.arange(table.shape[1]) < counts[:, np.newaxis]
    return _chosen(table, within & ~is_held), _chosen(table, within & is_held)


def _chosen(table: Rows, chosen: npt.NDArray[np.bool_]) -> PaddedRows:
    """The chosen rows of each device in their order, padded."""
    counts = chosen.sum(axis=1)
    places = np.argsort(~chosen, axis=1, kind="stable")[:, : int(counts.max(initial=0))]
    # Beyond its own, a device's last one again.
    last = np.maximum(counts - 1, 0)[:, np.newaxis]
    places = np.take_along_axis(places, np.minimum(np.arange(places.shape[1]), last), axis=1)
    return np.take_along_axis(table, places, axis=1), counts


def _classes(labels: npt.NDArray[np.generic]) -> list[Rows]:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            'partition.kind "dirichlet" skews class labels and needs integer targets of shape [examples], got '
            f'{labels.dtype} of shape {labels.shape}; use "iid" or "quantity" for this task'
        )
    return [np.flatnonzero(labels == label).astype(np.int64) for label in np.unique(labels)]


def _even_sizes(examples: int, devices: int) -> npt.NDArray[np.int64]:
    base, rest = divmod(examples, devices)
    return np.full(devices, base, dtype=np.int64) + (np.arange(devices) < rest)


def _sizes_of_shares(shares: npt.NDArray[np.float64], examples: int) -> npt.NDArray[np.int64]:
    ends = np.round(np.cumsum(shares) * examples).astype(np.int64)
    ends[-1] = examples
    return np.diff(ends, prepend=0)


def dirichlet(seed: int, purpose: str, index: Rows, *, parts: int, alpha: float) -> npt.NDArray[np.float64]:
    """Shares ``[n, parts]`` of the draws ``index`` ``[n]``; a gamma quantile of a uniform is a gamma draw."""
    u = uniform(draw_key(seed, purpose, index), parts)
    gammas = gammaincinv(alpha, u)
    # With a tiny alpha every quantile of a row may underflow to 0: the largest draw then takes all.
    empty = gammas.sum(axis=1) == 0.0
    gammas[empty, u[empty].argmax(axis=1)] = 1.0
    shares: npt.NDArray[np.float64] = gammas / gammas.sum(axis=1, keepdims=True)
    return shares


def _draw(examples: int, count: int, devices: Rows, *, seed: int) -> Rows:
    return (uniform(draw_key(seed, "draw", devices), count) * examples).astype(np.int64)


def _draw_by_label(classes: list[Rows], devices: Rows, *, seed: int, alpha: float, count: int) -> Rows:
    shares = dirichlet(seed, "label_shares", devices, parts=len(classes), alpha=alpha)
    sizes = np.array([len(rows) for rows in classes])
    starts = np.cumsum(sizes) - sizes
    u = uniform(draw_key(seed, "draw", devices), 2 * count)
    bounds = np.cumsum(shares, axis=1)[:, :-1]
    # How many bounds are at or below the number: searchsorted from the right, row by row.
    label = (bounds[:, np.newaxis, :] <= u[:, :count, np.newaxis]).sum(axis=2)
    place = (u[:, count:] * sizes[label]).astype(np.int64)
    drawn: Rows = np.concatenate(classes)[starts[label] + place]
    return drawn


def _deal_by_label(
    classes: list[Rows], shares: npt.NDArray[np.float64], *, seed: int, sizes: npt.NDArray[np.int64]
) -> list[Rows]:
    shuffled = [rows[permutation(draw_key(seed, "shuffle", label), len(rows))] for label, rows in enumerate(classes)]
    left = np.array([len(rows) for rows in classes])
    dealt: list[list[int]] = [[] for _ in sizes]
    # Devices choose in a drawn order: the last ones get what is left.
    for device in permutation(draw_key(seed, "deal"), len(sizes)):
        for u in uniform(draw_key(seed, "draw", device), int(sizes[device])):
            bounds = np.cumsum(shares[device] * (left > 0))
            # Its own classes have run out; below the smallest normal number, u * bounds[-1] could round to bounds[-1].
            if bounds[-1] < np.finfo(np.float64).tiny:
                bounds = np.cumsum(left.astype(np.float64))
            label = int(np.searchsorted(bounds, u * bounds[-1], side="right"))
            left[label] -= 1
            dealt[device].append(int(shuffled[label][left[label]]))
    return [np.array(rows, dtype=np.int64) for rows in dealt]
