"""The least squares behind ``calibration``: one efficiency from measurements of one runtime, in vectors.

``calibration.predicted_seconds`` is the plain form of the same prediction; a test holds the two together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from pocketfleet.device_sim.compute import PARALLEL_CLASSES
from pocketfleet.device_sim.efficiency import ClassCost, Efficiency
from pocketfleet.device_sim.measurement import Measurement, Work

__all__ = ["OPERATORS_WEIGHT", "PULL", "fit_efficiency"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Assumed: a chain of one operator runs in warm caches, as no step does.
OPERATORS_WEIGHT = 0.5
# Weak: a parameter off by a factor of e counts as a row that is off by 5 %.
PULL = 0.05
# A parameter that moved by less, as a logarithm, stands where it began.
_UNMOVED = 1e-2
# Orders of magnitude that no kernel is outside of: of a core's peak; a byte in seconds, from a hundred terabytes to a
# megabyte a second; an operator or a call in seconds; a share of further cores' peak.
_EFFICIENCY, _BYTE_S, _OVERHEAD_S, _PARALLEL_RATIO = (1e-5, 1.0), (1e-14, 1e-6), (1e-10, 1.0), (1e-3, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Measurements as columns, a group of like operators a row; ``owner`` is the measurement's index.

    ``further_peaks`` is what further threads add, in peaks of one, where they help.
    """

    names: tuple[str, ...]
    owner: Ints
    operator_class: Ints
    count: Floats
    flops: Floats
    bytes: Floats
    memory_s: Floats
    peak_flops: Floats
    further_peaks: Floats
    slower: Floats
    own_dispatch_s: Floats
    seconds: Floats
    fixed: Floats
    weight: Floats


def fit_efficiency(measurements: Sequence[Measurement], *, start: Efficiency) -> Efficiency:
    """The efficiency that tells the measurements best; ``calibration`` has the rules.

    Args:
        measurements: of one runtime, at least one.
        start: where the search begins and what unknown parameters stay at.

    Returns:
        With ``untold``, the parameters that stayed there for want of a measurement.
    """
    core_peak_flops = measurements[0].peak_flops
    slower = (start.core_peak_flops / core_peak_flops) ** 0.5
    rows = _rows(measurements, start, core_peak_flops=core_peak_flops, slower=slower)
    low, high = np.log(_bounds(len(rows.names)))
    begin = np.clip(_start_vector(rows.names, start, slower=slower), low, high)
    found = least_squares(
        lambda logs: np.concatenate(
            [rows.weight * np.log(_seconds(np.exp(logs), rows) / rows.seconds), PULL * (logs - begin)]
        ),
        begin,
        bounds=(low, high),
    )
    # How much the measurements' residuals change with a parameter's logarithm; by less than the pull: none tells of it.
    told = np.square(found.jac[: len(measurements)]).sum(axis=0) >= PULL**2
    untold = _parameter_names(rows.names)[~told & (np.abs(found.x - begin) < _UNMOVED)]
    fitted = _efficiency(np.exp(found.x), rows.names, measurements[0].runtime, start, core_peak_flops, slower)
    # A class's own dispatch is carried over, not fitted.
    carried = {f"{name}.dispatch_s" for name, cost in fitted.classes.items() if cost.dispatch_s is not None}
    return replace(fitted, untold=frozenset(untold.tolist()) | carried)


def _parameter_names(names: Sequence[str]) -> npt.NDArray[np.str_]:
    """What the vector's places are called in a profile; its order is that of ``_bounds``."""
    classes = [f"{name}.{part}" for part in ("efficiency", "byte_s") for name in names]
    return np.array([*classes, "dispatch_s", "fixed_s", "parallel_ratio"])


def _names(measurements: Sequence[Measurement], start: Efficiency) -> tuple[str, ...]:
    """The start's classes, and those that only the measurements know."""
    measured = (work.operator_class for one in measurements for work in one.work)
    return tuple(dict.fromkeys((*start.classes, *measured)))


def _start_cost(name: str, start: Efficiency) -> ClassCost:
    """A class that the start does not know begins like its first that is neither product nor convolution."""
    if name in start.classes:
        return start.classes[name]
    return next(
        (cost for known, cost in start.classes.items() if known not in PARALLEL_CLASSES),
        ClassCost(efficiency=0.05, byte_s=1e-10),
    )


def _rows(measurements: Sequence[Measurement], start: Efficiency, *, core_peak_flops: float, slower: float) -> _Rows:
    names = _names(measurements, start)
    works = [work for one in measurements for work in one.work]
    owner = np.repeat(np.arange(len(measurements)), [len(one.work) for one in measurements])
    count, flops, bytes_ = (_column(works, figure) for figure in ("operators", "flops", "bytes"))
    peak, many = _column(measurements, "peak_flops"), _column(measurements, "parallel_peak_flops")
    parallel = np.array([work.operator_class in PARALLEL_CLASSES for work in works])
    own = [_start_cost(name, start).dispatch_s for name in names]
    whole = np.array([one.scope == "step" for one in measurements])
    return _Rows(
        names=names,
        owner=owner,
        operator_class=np.array([names.index(work.operator_class) for work in works], dtype=np.int64),
        count=count,
        flops=flops / count,
        bytes=bytes_ / count,
        memory_s=bytes_ / count / _column(measurements, "memory_bytes_per_s")[owner],
        peak_flops=peak[owner],
        further_peaks=np.where(parallel, np.maximum(many / peak - 1.0, 0.0)[owner], 0.0),
        slower=np.sqrt(core_peak_flops / peak),
        # NaN: the runtime's.
        own_dispatch_s=np.array([np.nan if value is None else value * slower for value in own]),
        seconds=_column(measurements, "seconds"),
        fixed=whole.astype(np.float64),
        weight=np.where(whole, 1.0, OPERATORS_WEIGHT),
    )


def _column(rows: Sequence[Measurement] | Sequence[Work], figure: str) -> Floats:
    return np.array([getattr(row, figure) for row in rows], dtype=np.float64)


def _bounds(classes: int) -> Floats:
    ranges = [_EFFICIENCY] * classes + [_BYTE_S] * classes + [_OVERHEAD_S, _OVERHEAD_S, _PARALLEL_RATIO]
    return np.array(ranges).T


def _start_vector(names: Sequence[str], start: Efficiency, *, slower: float) -> Floats:
    """Logarithms, on the measured core; a start of 0 becomes the bound."""
    costs = [_start_cost(name, start) for name in names]
    seconds = [*(cost.byte_s for cost in costs), start.dispatch_s, start.fixed_s]
    values = [*(cost.efficiency for cost in costs), *(value * slower for value in seconds), start.parallel_ratio]
    return np.log(np.maximum(values, np.finfo(np.float64).tiny))


def _seconds(values: Floats, rows: _Rows) -> Floats:
    """Predicted seconds of each measurement."""
    classes = len(rows.names)
    efficiency, byte_s = values[:classes], values[classes : 2 * classes]
    dispatch_s, fixed_s, parallel_ratio = values[2 * classes :]
    slower = rows.slower[rows.owner]
    rate = rows.peak_flops * efficiency[rows.operator_class]
    core_s = np.maximum(rows.flops / rate, rows.bytes * byte_s[rows.operator_class] * slower)
    core_s = core_s / (1.0 + parallel_ratio * rows.further_peaks)
    own = rows.own_dispatch_s[rows.operator_class]
    each_s = np.maximum(core_s, rows.memory_s) + np.where(np.isnan(own), dispatch_s, own) * slower
    sums = np.bincount(rows.owner, weights=rows.count * each_s, minlength=len(rows.seconds)).astype(np.float64)
    seconds: Floats = sums + rows.fixed * fixed_s * rows.slower
    return seconds


def _efficiency(
    values: Floats, names: Sequence[str], runtime: str, start: Efficiency, core_peak_flops: float, slower: float
) -> Efficiency:
    classes = len(names)
    costs = {}
    for index, name in enumerate(names):
        own_s = _start_cost(name, start).dispatch_s
        costs[name] = ClassCost(
            efficiency=float(values[index]),
            byte_s=float(values[classes + index]),
            dispatch_s=None if own_s is None else own_s * slower,
        )
    return Efficiency(
        runtime=runtime,
        classes=costs,
        dispatch_s=float(values[2 * classes]),
        fixed_s=float(values[2 * classes + 1]),
        parallel_ratio=float(values[2 * classes + 2]),
        core_peak_flops=core_peak_flops,
    )
