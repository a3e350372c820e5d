"""How long a phone works on what was seen on this host: of a program whose operators nobody knows.

Rules:

1. *Measured*: the CPU seconds that the work took here, of all threads together, times this host's one-thread peak over
   the phone's peak on the threads that it trains on. It is assumed that both use the same share of their peaks. That is
   too kind to big cores where the work is Python, which a peak says nothing about, and too hard on a phone whose own
   runtime is better than this host's Python.
2. *Given*: the floating-point operations of an example, over the share of the phone's peak that the app reaches. Then a
   run is the same each time.
3. What is neither training nor evaluation takes what rule 1 says, and under rule 2 nothing.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["PhoneWork", "host_peak_flops"]

# A phone that works on anything works so long at least.
_LEAST_S = 1e-6
_SIDES = (128, 192, 256, 384, 512)
_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhoneWork:
    """See the module's rules.

    Attributes:
        phone_flops: the peak of the threads that a phone trains on, ``[devices]``.
        host_flops: the one-thread peak of this host.
        flops_per_example: by ``"train"`` and ``"evaluate"``; empty: measured.
        efficiency_ratio: the share of a phone's peak that the app reaches, for ``flops_per_example``.
    """

    phone_flops: npt.NDArray[np.float64]
    host_flops: float
    flops_per_example: dict[str, float]
    efficiency_ratio: float

    def seconds(self, device: int, *, kind: str, cpu_s: float, num_examples: int) -> float:
        """Of work on a device.

        Args:
            device: dense index.
            kind: ``"train"``, ``"evaluate"``, or anything else.
            cpu_s: that it took here.
            num_examples: that it handled.
        """
        if self.flops_per_example:
            flops = self.flops_per_example.get(kind, 0.0) * num_examples / self.efficiency_ratio
        else:
            flops = cpu_s * self.host_flops
        return max(float(flops / self.phone_flops[device]), _LEAST_S)


def host_peak_flops() -> float:
    """The best rate of a one-thread FP32 matrix product in PyTorch, as efficiencies are measured: a lower bound."""
    import time

    import torch

    best = 0.0
    with _one_thread():
        for side in _SIDES:
            left = torch.ones(side, side)
            for _ in range(_TRIES):
                began_s = time.perf_counter()
                torch.mm(left, left)
                best = max(best, 2.0 * side**3 / (time.perf_counter() - began_s))
    return best


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
