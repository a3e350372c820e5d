"""Columns that a driver brings to the coordinator, checked before anything changes."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pocketfleet.training.round import Bools, Float64s, Int64s

__all__ = ["checked_devices", "checked_integers", "checked_times", "previous_occurrence", "require"]


def previous_occurrence(values: Int64s) -> Int64s | None:
    """Where each value occurred last before its own place, [n] to [n], -1 for a first occurrence; None: all differ."""
    # Nearly always nothing occurs twice, which a plain sort tells in less than half the time.
    ordered = np.sort(values)
    if (ordered[1:] != ordered[:-1]).all():
        return None
    previous = np.full(values.size, -1, np.int64)
    order = values.argsort(kind="stable")
    same = values[order[1:]] == values[order[:-1]]
    previous[order[1:][same]] = order[:-1][same]
    return previous


def checked_times(now_s: npt.ArrayLike, *, floor_s: float) -> Float64s:
    """Times ``[n]`` as floats.

    Raises:
        ValueError: they are no column, one is not finite, before the one before it, or before ``floor_s``.
    """
    times = np.asarray(now_s, np.float64)
    if times.ndim != 1:
        raise ValueError(f"now_s must be one column [n], got shape {times.shape}")
    earlier = np.concatenate(([floor_s], times[:-1]))
    require(np.isfinite(times) & (times >= earlier), times, f"now_s must be finite and never decrease (now {floor_s})")
    return times


def checked_integers(name: str, values: npt.ArrayLike, *, size: int) -> Int64s:
    """Integers ``[size]``.

    Raises:
        ValueError: they are no integers, or more or fewer; ``name`` is what they are called.
    """
    column = np.asarray(values)
    if column.shape != (size,):
        raise ValueError(f"{name} must have the shape of now_s, ({size},), got {column.shape}")
    if column.size and column.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, got {column.dtype}")
    return column.astype(np.int64)


def checked_devices(device: npt.ArrayLike, *, size: int, population: int) -> Int64s:
    """Dense device indices ``[size]``.

    Raises:
        ValueError: they are no integers, more or fewer, or one is not below ``population``.
    """
    devices = checked_integers("device", device, size=size)
    require((devices >= 0) & (devices < population), devices, f"device must be 0..{population - 1}")
    return devices


def require(fulfilled: Bools, values: npt.NDArray[Any], rule: str) -> None:
    """Raise ``ValueError`` with the first of ``values`` that does not fulfil the ``rule``; both ``[n]``."""
    if not fulfilled.all():
        index = int(fulfilled.argmin())
        raise ValueError(f"{rule}, got {values[index]} at index {index}")
