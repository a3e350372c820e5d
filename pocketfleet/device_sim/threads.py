"""What a phone computes and draws with more than one thread.

Rules:

1. Threads fill the fastest cores first, one thread a core; threads beyond the cores add nothing.
2. One thread has the phone's one-thread figure, a thread on every core its all-core figure. Between them the cores
   that joined count by their share of the clusters' peaks (``cores.py``): eight threads are not eight times one,
   for the little cores add little, and the all-core figure is the bound.
3. Watts grow with the same share. Assumed, because little cores draw about as much an operation as big ones: 3.2, 2.8
   and 3.3 mA a GFLOP/s for the three clusters of a Pixel 8 (its power profile over its measured peaks, ``phones.csv``).
4. Peaks are not sustained: memory, heat and the program's own parallelism come on top, elsewhere.
"""

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.phone import Phone
from pocketfleet.errors import InputError

__all__ = ["compute_watts", "core_count", "peak_flops"]

Floats = npt.NDArray[np.float64]


def core_count(phone: Phone) -> int:
    """How many cores a phone has, little ones included."""
    return sum(cluster.cores for cluster in phone.clusters)


def peak_flops(phone: Phone, threads: int | npt.NDArray[np.int64]) -> Floats:
    """FP32 operations a second at most.

    Args:
        phone: whose cores.
        threads: 1 or more, any shape.

    Returns:
        The same shape; rises with the threads from ``peak_flops_one_thread`` to ``peak_flops_all_cores``.

    Raises:
        InputError: a number of threads is under 1.
    """
    return _between(phone, threads, one=phone.peak_flops_one_thread, all_cores=phone.peak_flops_all_cores)


def compute_watts(phone: Phone, threads: int | npt.NDArray[np.int64]) -> Floats:
    """Watts above idle while so many threads train, as ``peak_flops`` takes and returns them.

    Raises:
        InputError: a number of threads is under 1.
    """
    return _between(phone, threads, one=phone.compute_watts, all_cores=phone.compute_watts_all_cores)


def _between(phone: Phone, threads: int | npt.NDArray[np.int64], *, one: float, all_cores: float) -> Floats:
    wanted = np.asarray(threads, dtype=np.int64)
    if wanted.size and wanted.min() < 1:
        raise InputError(f"threads must be 1 or more, got {int(wanted.min())}")
    reached = _cumulative_peaks(phone)
    rise = (reached - reached[0]) / max(reached[-1] - reached[0], 1.0)
    value: Floats = one + (all_cores - one) * rise[np.minimum(wanted, len(reached)) - 1]
    return value


def _cumulative_peaks(phone: Phone) -> Floats:
    """Clusters' peaks added up core by core, the fastest core first: ``[cores]``."""
    peaks = [cluster.peak_flops_one_thread for cluster in phone.clusters]
    by_core = np.repeat(peaks, [cluster.cores for cluster in phone.clusters])
    return np.cumsum(np.sort(by_core)[::-1])
