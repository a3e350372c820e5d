"""What many updates become when some of them may lie: pure functions on blocks of ``[reports, columns]``.

Rules, each of its paper; none weighs a report by its examples, for a liar would name a large number:

1. *Median* (Yin et al. 2018, arXiv:1803.01498, definition 1): each coordinate's median; the mean of the two in the
   middle where their number is even.
2. *Trimmed mean* (the same, definition 2): of each coordinate the ``ratio`` largest and as many smallest values are
   left out, the rest is averaged.
3. *Multi-Krum* (Blanchard et al. 2017, arXiv:1703.02757): of ``n`` reports, ``f`` of which may lie, each is
   scored by the sum of its squared distances to its ``n - f - 2`` nearest; the mean of the ``m`` best scored is taken.
   The paper asks for ``n >= 2 f + 3``, and leaves ``m`` open; it is ``n - f`` here, as many as are taken to be honest.

A report with a value that is no number never comes here: it is weeded out before.
"""

import numpy as np
import numpy.typing as npt

__all__ = [
    "coordinate_median",
    "krum_choice",
    "least_cohort",
    "most_liars",
    "squared_distances",
    "trimmed_each_side",
    "trimmed_mean",
]

Floats = npt.NDArray[np.floating]
Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


def coordinate_median(block: Floats) -> Float64s:
    """Rule 1: ``[reports, columns]`` to ``[columns]``."""
    upper = len(block) // 2
    lower = (len(block) - 1) // 2
    middle = np.partition(block, (lower, upper), axis=0)
    # In float64: the mean of two float32 would be rounded, or overflow.
    median: Float64s = (middle[lower].astype(np.float64) + middle[upper]) / 2.0
    return median


def trimmed_each_side(reports: int, ratio: float) -> int:
    """How many values are left out at each end: ``ratio * reports`` rounded down, one value left at least."""
    # 0.29 * 100 is 28.999999999999996.
    return min(int(ratio * reports + 1e-9), (reports - 1) // 2)


def trimmed_mean(block: Floats, *, ratio: float) -> Float64s:
    """Rule 2: ``[reports, columns]`` to ``[columns]``; ``ratio`` is of one end, in [0, 0.5)."""
    each_side = trimmed_each_side(len(block), ratio)
    ordered = np.sort(block, axis=0)
    # Summed in order of value: any order of the reports gives the same bits.
    mean: Float64s = ordered[each_side : len(block) - each_side].astype(np.float64).mean(axis=0)
    return mean


def squared_distances(block: Floats) -> Float64s:
    """Squared distances between reports over these columns: ``[reports, columns]`` to ``[reports, reports]``.

    They are inner products of float64 values less the columns' medians. From any other centre one huge lie would leave
    no digits of the distances between the honest.
    """
    centred = block.astype(np.float64) - coordinate_median(block)
    products = centred @ centred.T
    norms = np.diagonal(products)
    distances: Float64s = np.maximum(norms[:, np.newaxis] + norms - 2.0 * products, 0.0)
    np.fill_diagonal(distances, 0.0)
    return distances


def least_cohort(byzantine: int) -> int:
    """The fewest reports of which ``byzantine`` may lie: ``2 f + 3``."""
    return 2 * byzantine + 3


def most_liars(reports: int, byzantine: int) -> int:
    """``f`` for a round of ``reports``: ``byzantine``, or as many as rule 3 allows of so few, none at least."""
    return max(0, min(byzantine, (reports - 3) // 2))


def krum_choice(distances: Float64s, *, byzantine: int) -> Int64s:
    """Rule 3: which reports are averaged.

    Args:
        distances: squared, ``[reports, reports]``, of whole updates.
        byzantine: ``f``; a round with fewer than ``2 f + 3`` reports takes ``most_liars``.

    Returns:
        Rows in rising order, ``n - f`` of them; of equal scores the earlier row goes first.
    """
    reports = len(distances)
    liars = most_liars(reports, byzantine)
    nearest = max(0, reports - liars - 2)
    scores = np.empty(reports)
    for row in range(reports):
        # Summed from the least: the order of the reports does not matter.
        others = np.sort(np.delete(distances[row], row))
        scores[row] = others[:nearest].sum()
    best = np.argsort(scores, kind="stable")[: reports - liars]
    return np.sort(best).astype(np.int64)
