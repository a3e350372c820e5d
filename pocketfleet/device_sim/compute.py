"""How many seconds a training step takes on a phone: a roofline over the program's operators.

Equation: ``fixed + sum over operators of (max(flops / (peak_flops * efficiency), bytes / bandwidth) + dispatch)``.

Rules:

1. *Efficiency* is a ratio of a machine's own one-thread peak, per kind of operator and runtime. It is measured on a
   host (``catalog/efficiency.csv``, made by ``benchmarks/measure_efficiency.py``) and carried over to the phone.
   The host's peak is the best rate seen, a lower bound of its true peak, so an efficiency is an upper bound.
2. ``dispatch`` (an operator) and ``fixed`` (a step) are seconds on that host. Assumed: a phone's core needs longer by
   ``sqrt(host_peak_flops / peak_flops)``. Overheads are scalar work: cores differ less in it than in their peaks, which
   vector width drives. (Under DL4J the fixed cost of a dense layer fell only 1.4-fold, 38 to 28 ms, from a Redmi
   Note 8 to a Galaxy Note 10, the slope by the FLOP 2.1-fold: fits to PKU-Chengxu/FLASH's layer tables.)
3. A measurement of a real phone beats this model. One scalar per phone is known to be wrong, which is why kinds,
   bytes and overheads are apart.

Source of the bound: Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model for
multicore architectures", CACM 52(4), here applied to each operator.
"""

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.catalog import packaged_rows
from pocketfleet.errors import InputError

__all__ = ["KINDS", "Efficiency", "load_efficiency", "step_seconds"]

Floats = npt.NDArray[np.float64]

KINDS = ("matmul", "convolution", "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """What one runtime makes of a core.

    Attributes:
        runtime: "executorch" or "onnx".
        matmul: ratio of peak that matrix products reach.
        convolution: the same of the runtime's own convolution kernels, forward and backward.
        other: the same of everything else, such as elementwise operators.
        dispatch_s: seconds an operator costs whatever its size, on the measured host.
        fixed_s: seconds a call of the program costs whatever its operators, on the measured host.
        host_peak_flops: the one-thread peak of that host.
    """

    runtime: str
    matmul: float
    convolution: float
    other: float
    dispatch_s: float
    fixed_s: float
    host_peak_flops: float

    def ratio(self, kind: str) -> float:
        """The ratio of peak of a kind of operator.

        Raises:
            ValueError: ``kind`` is none of ``KINDS``.
        """
        if kind not in KINDS:
            raise ValueError(f"an operator's kind is one of {', '.join(KINDS)}, got {kind!r}")
        return float(getattr(self, kind))


def load_efficiency(runtime: str) -> Efficiency:
    """The measured efficiency of a runtime.

    Raises:
        InputError: there is none; the message lists the runtimes.
    """
    measured = _parameters()
    if runtime not in measured:
        raise InputError(f"fleet.program must be one of {', '.join(measured)}, got {runtime!r}")
    return Efficiency(runtime=runtime, **measured[runtime])


def step_seconds(
    *,
    kind: Sequence[str],
    flops: npt.ArrayLike,
    bytes: npt.ArrayLike,
    peak_flops: Floats,
    memory_bytes_per_s: Floats,
    efficiency: Efficiency,
) -> Floats:
    """Seconds of one training step on each device, ``float64 [n]``.

    Args:
        kind: ``[k]``, the kind of each operator of the program, one of ``KINDS``.
        flops: ``[k]``, floating-point operations of one call of it, a fused multiply-add counting as two.
        bytes: ``[k]``, bytes it reads and writes.
        peak_flops: ``[n]``, the one-thread FP32 peak of each device.
        memory_bytes_per_s: ``[n]``.
        efficiency: of the runtime that executes the program.

    Raises:
        ValueError: ``kind``, ``flops`` and ``bytes`` differ in length, or a kind is unknown.
    """
    flops_list = np.asarray(flops, dtype=np.float64).tolist()
    bytes_list = np.asarray(bytes, dtype=np.float64).tolist()
    overhead_s = efficiency.fixed_s + len(kind) * efficiency.dispatch_s
    seconds: Floats = overhead_s * np.sqrt(efficiency.host_peak_flops / peak_flops)
    # A program repeats its operators (an optimizer's, above all): each distinct one is computed once.
    distinct = Counter(zip(kind, flops_list, bytes_list, strict=True))
    for (name, operator_flops, operator_bytes), count in distinct.items():
        compute_s = operator_flops / (peak_flops * efficiency.ratio(name))
        seconds += count * np.maximum(compute_s, operator_bytes / memory_bytes_per_s)
    return seconds


@functools.cache
def _parameters() -> dict[str, dict[str, float]]:
    """``{runtime: {parameter: value}}`` of the packaged table."""
    runtimes: dict[str, dict[str, float]] = {}
    for row in packaged_rows("efficiency.csv"):
        runtimes.setdefault(row.text("runtime"), {})[row.text("parameter")] = row.number("value")
    return runtimes
