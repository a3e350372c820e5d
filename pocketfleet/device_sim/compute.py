"""How many seconds a training step takes on a phone: a roofline over the program's operators.

Equation: ``fixed + sum over operators of (max(flops / (peak_flops * efficiency), bytes * byte_s, bytes / bandwidth) +
dispatch)``.

Rules:

1. *Efficiency* is a ratio of a machine's own one-thread peak, per class of operators and runtime. It is fitted to what
   a host measured (``catalog/efficiency.csv``; ``calibration`` says how) and carried over to the phone. The host's peak
   is the best rate seen, a lower bound of its true peak, so an efficiency is an upper bound.
2. ``byte_s`` (a byte read or written), ``dispatch`` (an operator) and ``fixed`` (a step) are seconds on that host. A
   kernel that walks over values one by one is bound by its core long before the memory: bytes have a roof of the
   core's beside that of the bandwidth. Assumed: a phone's core needs longer by ``sqrt(core_peak_flops / peak_flops)``.
   This is scalar work: cores differ less in it than in their peaks, which vector width drives. (Under DL4J the fixed
   cost of a dense layer fell only 1.4-fold, 38 to 28 ms, from a Redmi Note 8 to a Galaxy Note 10, the slope by the FLOP
   2.1-fold: fits to PKU-Chengxu/FLASH's layer tables.)
3. More threads make products and convolutions faster, and nothing else: the core's time is divided by 1 plus
   ``parallel_ratio`` of what the further cores add to one thread's peak. Assumed: work is dealt out evenly, so that
   every core waits for the slowest in use (``shared_peak_flops``).
4. A measurement of a real phone beats this model (``efficiency.Profile``). One scalar per phone is known to be wrong,
   which is why classes, bytes and overheads are apart.

Source of the bound: Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model for
multicore architectures", CACM 52(4), here applied to each operator.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.efficiency import Efficiency, Profile
from pocketfleet.device_sim.operator_class import operator_classes
from pocketfleet.device_sim.phone import Phone
from pocketfleet.device_sim.threads import peak_flops as peak_of_threads
from pocketfleet.export.footprint import Operator

__all__ = [
    "PARALLEL_CLASSES",
    "program_seconds",
    "shared_peak_flops",
    "step_seconds",
]

Floats = npt.NDArray[np.float64]

# What a runtime divides among threads; see rule 3.
PARALLEL_CLASSES = frozenset({"matmul", "convolution"})


def step_seconds(
    *,
    kind: Sequence[str],
    flops: npt.ArrayLike,
    bytes: npt.ArrayLike,
    peak_flops: Floats,
    memory_bytes_per_s: Floats,
    efficiency: Efficiency,
    parallel_peak_flops: Floats | None = None,
) -> Floats:
    """Seconds of one training step on each device, ``float64 [n]``.

    Args:
        kind: ``[k]``, the class of each operator of the program, one of the efficiency's.
        flops: ``[k]``, floating-point operations of one call of it, a fused multiply-add counting as two.
        bytes: ``[k]``, bytes it reads and writes.
        peak_flops: ``[n]``, the one-thread FP32 peak of each device.
        memory_bytes_per_s: ``[n]``.
        efficiency: of the runtime that executes the program.
        parallel_peak_flops: ``[n]``, the peak of the threads that train together; one thread's if left out.

    Raises:
        ValueError: ``kind``, ``flops`` and ``bytes`` differ in length, or a class is unknown.
    """
    flops_list = np.asarray(flops, dtype=np.float64).tolist()
    bytes_list = np.asarray(bytes, dtype=np.float64).tolist()
    slower = np.sqrt(efficiency.core_peak_flops / peak_flops)
    many = peak_flops if parallel_peak_flops is None else parallel_peak_flops
    speedup = 1.0 + efficiency.parallel_ratio * np.maximum(many / peak_flops - 1.0, 0.0)
    seconds: Floats = efficiency.fixed_s * slower
    # A program repeats its operators (an optimizer's, above all): each distinct one is computed once.
    distinct = Counter(zip(kind, flops_list, bytes_list, strict=True))
    for (name, operator_flops, operator_bytes), count in distinct.items():
        cost = efficiency.cost(name)
        core_s = np.maximum(operator_flops / (peak_flops * cost.efficiency), operator_bytes * cost.byte_s * slower)
        if name in PARALLEL_CLASSES:
            core_s = core_s / speedup
        dispatch_s = efficiency.dispatch_s if cost.dispatch_s is None else cost.dispatch_s
        seconds = seconds + count * (np.maximum(core_s, operator_bytes / memory_bytes_per_s) + dispatch_s * slower)
    return seconds


def program_seconds(
    operators: Sequence[Operator],
    *,
    profile: Profile,
    runtime: str,
    phones: Sequence[str],
    peak_flops: Floats,
    memory_bytes_per_s: Floats,
    parallel_peak_flops: Floats | None = None,
) -> Floats:
    """Seconds of one call of a program on each device, ``float64 [n]``, by the profile's figures for its phone.

    Args:
        operators: of the program at one batch size, as ``Footprint.at`` gives them.
        profile: efficiencies; a phone's own beat those for any.
        runtime: that executes the program.
        phones: ``[n]``, the phone that each device is a unit of.
        peak_flops: ``[n]``, as for ``step_seconds``, with the two that follow.
        memory_bytes_per_s: ``[n]``.
        parallel_peak_flops: ``[n]``.

    Raises:
        InputError: the profile has no figures for the runtime.
    """
    names = np.array([phone if profile.has_own(runtime, phone) else "" for phone in phones])
    seconds = np.zeros(len(phones))
    for name in np.unique(names):
        rows = names == name
        seconds[rows] = step_seconds(
            kind=operator_classes(operators),
            flops=[operator.flops for operator in operators],
            bytes=[operator.bytes for operator in operators],
            peak_flops=peak_flops[rows],
            memory_bytes_per_s=memory_bytes_per_s[rows],
            efficiency=profile.efficiency(runtime, str(name)) if name else profile.efficiency(runtime),
            parallel_peak_flops=None if parallel_peak_flops is None else parallel_peak_flops[rows],
        )
    return seconds


def shared_peak_flops(phone: Phone, *, threads: int) -> float:
    """The peak of so many threads of a phone that share work evenly; see rule 3.

    Args:
        phone: whose cores; a thread a core, fastest first.
        threads: 1 or more; beyond the number of cores they add nothing.

    Raises:
        InputError: ``threads`` is less than 1.
    """
    together = float(peak_of_threads(phone, threads))
    fastest_first = sorted(
        (cluster.peak_flops_one_thread for cluster in phone.clusters for _ in range(cluster.cores)), reverse=True
    )[:threads]
    if len(fastest_first) == 1:
        return together
    return min(together, len(fastest_first) * fastest_first[-1])
