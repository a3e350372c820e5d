"""Where devices are: at home, on the way, at work. What their link there is, ``network`` says."""

import enum

import numpy as np
import numpy.typing as npt

__all__ = ["Place", "always_home"]


class Place(enum.IntEnum):
    """A kind of place; its Wi-Fi, if it has one, is another's than at home."""

    HOME = 0
    COMMUTE = 1
    WORK = 2


def always_home(devices: npt.ArrayLike) -> npt.NDArray[np.int8]:
    """``Place.HOME`` for each, ``int8 [n]``: of a day that tells no places."""
    return np.full(len(np.atleast_1d(devices)), Place.HOME, dtype=np.int8)
