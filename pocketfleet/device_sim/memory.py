"""Does a training program fit into a phone's free memory?

Rule: planned memory of the program, plus what the app around it takes, must fit into the free memory
less a headroom. A phone that is short of it refuses before it starts; it is not killed half way.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["HEADROOM_RATIO", "RUNTIME_BYTES", "fits"]

# Assumed: a headless Android app process with a loaded native runtime, next to the planned memory.
RUNTIME_BYTES = 64 * 2**20
# Assumed: the share of free memory left alone, so that the low-memory killer has no reason to look.
HEADROOM_RATIO = 0.1


def fits(training_memory_bytes: int, free_memory_bytes: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Whether training fits, ``bool [n]``.

    Args:
        training_memory_bytes: what the program plans: weights, state, activations, batch; 0 or more.
        free_memory_bytes: ``[n]``, what each device has free before the app starts.

    Raises:
        ValueError: ``training_memory_bytes`` is negative.
    """
    if training_memory_bytes < 0:
        raise ValueError(f"training_memory_bytes must be 0 or more, got {training_memory_bytes}")
    enough: npt.NDArray[np.bool_] = free_memory_bytes * (1.0 - HEADROOM_RATIO) >= training_memory_bytes + RUNTIME_BYTES
    return enough
