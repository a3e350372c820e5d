"""How long a device's update is: the L2 norm of its whole delta, all tensors as one vector."""

import math

import numpy as np
import numpy.typing as npt

from pocketfleet.training.weights import Tensors

__all__ = ["update_norms"]

Float64s = npt.NDArray[np.float64]


def update_norms(delta: Tensors) -> Float64s:
    """Of each of stacked deltas ``[k, ...]``, ``[k]``, in float64; one update's bits do not depend on the others.

    A delta with values that are no finite numbers has a norm that is none.
    """
    squares = [
        np.square(value.numpy(force=True).reshape(len(value), math.prod(value.shape[1:])).astype(np.float64)).sum(
            axis=1
        )
        for value in delta.values()
    ]
    norms: Float64s = np.sqrt(np.sum(squares, axis=0))
    return norms
