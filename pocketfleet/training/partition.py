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
from collections.abc import Callable, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincinv

from pocketfleet.errors import InputError
from pocketfleet.training.draws import draw_key, permutation, uniform

__all__ = ["HELD_OUT_ONE_IN", "held_out_split", "partition", "sizes"]

Rows = npt.NDArray[np.int64]
# One in five of a device's own examples is held back to measure its models; a device with fewer than five has none.
HELD_OUT_ONE_IN = 5


def partition(
    kind: str, labels: npt.NDArray[np.generic], *, devices: int, seed: int, alpha: float, examples_per_device: int = 0
) -> Sequence[Rows]:
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
            return _DrawnRows(devices, examples_per_device, draw)
        shares = _dirichlet(seed, "label_shares", np.arange(devices), parts=len(classes), alpha=alpha)
        return _deal_by_label(classes, shares, seed=seed, sizes=_even_sizes(len(labels), devices))
    if examples_per_device:
        draw = functools.partial(_draw, len(labels), examples_per_device, seed=seed)
        return _DrawnRows(devices, examples_per_device, draw)
    sizes = _even_sizes(len(labels), devices)
    if kind == "quantity":
        shares = _dirichlet(seed, "quantity", np.arange(1), parts=devices, alpha=alpha)[0]
        sizes = _sizes_of_shares(shares, len(labels))
    order = permutation(draw_key(seed, "deal"), len(labels))
    return np.split(order, np.cumsum(sizes)[:-1])


class _DrawnRows(Sequence[Rows]):
    """As many rows for each of ``devices``, drawn when they are asked for: a million devices hold no list."""

    def __init__(self, devices: int, count: int, draw: Callable[..., Rows]) -> None:
        self._devices, self._count, self._draw = devices, count, draw

    def __len__(self) -> int:
        return self._devices

    @overload
    def __getitem__(self, device: int) -> Rows: ...
    @overload
    def __getitem__(self, device: slice) -> list[Rows]: ...
    def __getitem__(self, device: int | slice) -> Rows | list[Rows]:
        if isinstance(device, slice):
            return [self[number] for number in range(*device.indices(self._devices))]
        if not 0 <= device < self._devices:
            raise IndexError(device)
        return self._draw(device=device)

    def sizes(self) -> Rows:
        """How many rows each device has, without drawing them."""
        return np.full(self._devices, self._count, dtype=np.int64)


def sizes(rows: Sequence[Rows]) -> Rows:
    """How many rows each device has, ``int64 [devices]``."""
    if isinstance(rows, _DrawnRows):
        return rows.sizes()
    return np.array([len(own) for own in rows], dtype=np.int64)


def held_out_split(rows: Rows, *, seed: int, device: int) -> tuple[Rows, Rows]:
    """Split one device's rows into those it trains on and those it holds out: a fifth, drawn by (seed, device)."""
    held = len(rows) // HELD_OUT_ONE_IN
    order = permutation(draw_key(seed, "held_out", device), len(rows))
    return rows[np.sort(order[held:])], rows[np.sort(order[:held])]


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


def _dirichlet(seed: int, purpose: str, index: Rows, *, parts: int, alpha: float) -> npt.NDArray[np.float64]:
    """``[n, parts]`` shares of ``index`` ``[n]``; a gamma quantile of a uniform is a gamma draw."""
    u = uniform(draw_key(seed, purpose, index), parts)
    gammas = gammaincinv(alpha, u)
    # With a tiny alpha every quantile of a row may underflow to 0: the largest draw then takes all.
    empty = gammas.sum(axis=1) == 0.0
    gammas[empty, u[empty].argmax(axis=1)] = 1.0
    shares: npt.NDArray[np.float64] = gammas / gammas.sum(axis=1, keepdims=True)
    return shares


def _draw(examples: int, count: int, *, seed: int, device: int) -> Rows:
    return (uniform(draw_key(seed, "draw", device), count) * examples).astype(np.int64)


def _draw_by_label(classes: list[Rows], *, seed: int, alpha: float, count: int, device: int) -> Rows:
    share = _dirichlet(seed, "label_shares", np.array([device]), parts=len(classes), alpha=alpha)[0]
    sizes = np.array([len(rows) for rows in classes])
    u = uniform(draw_key(seed, "draw", device), 2 * count)
    label = np.searchsorted(np.cumsum(share)[:-1], u[:count], side="right")
    place = (u[count:] * sizes[label]).astype(np.int64)
    return np.array(
        [classes[number][row] for number, row in zip(label.tolist(), place.tolist(), strict=True)], np.int64
    )


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
