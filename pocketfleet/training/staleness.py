"""What an update counts whose model version is old."""

import numpy as np
import numpy.typing as npt

__all__ = ["staleness_discount"]


def staleness_discount(staleness: npt.ArrayLike, *, exponent: float) -> npt.NDArray[np.float64]:
    """What an update counts whose version was ``staleness`` versions old: ``(1 + staleness) ** -exponent``; any shape.

    The polynomial of Xie et al. 2019, arXiv:1903.03934; FedBuff takes 0.5 (Nguyen et al. 2022, arXiv:2106.06639). It
    scales the update, not its weight in the mean: alone in a buffer, a stale update moves the model less.
    """
    discounts: npt.NDArray[np.float64] = (1.0 + np.asarray(staleness, dtype=np.float64)) ** -exponent
    return discounts
