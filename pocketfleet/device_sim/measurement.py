"""Measured seconds of training steps and what ran in them: the table that ``pocketfleet calibrate`` reads.

Rules:

1. A *measurement* is one duration: of a whole training step (``scope`` is ``step``), or of some of its operators as a
   profiler timed them (``operators``), which has no part in a step's fixed cost.
2. It is as many rows as it has groups of like operators, side by side, told by the name in ``measurement``. A row holds
   the group's class, how many operators there are, and their operations and bytes together. What belongs to the whole
   (phone, runtime, seconds, ...) is the same in each of its rows.
3. ``phone`` is a name of the catalogue; for any other machine ``peak_gflops`` (one thread) and ``memory_gb_per_s`` say
   what it can do, and ``parallel_peak_gflops`` where more than one thread trained. They may stand beside a catalogue's
   name too, and then win.
4. ``model`` is what is trained: measurements of one model are held out together. Where it is empty, as of a chain of
   one operator, a measurement is in every fit.
5. ``inference_gflops``, and ``inference_seconds`` where predictions were timed, are for the comparison with FedScale's
   rule (``fedscale_rule``).
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pocketfleet.device_sim.catalog import Row, file_rows
from pocketfleet.device_sim.compute import shared_peak_flops
from pocketfleet.device_sim.phone import find_phone
from pocketfleet.errors import InputError

__all__ = ["COLUMNS", "Measurement", "Scope", "Work", "read_measurements", "write_measurements"]

Scope = Literal["step", "operators"]

COLUMNS = ("measurement", "phone", "runtime", "scope", "operator_class", "operators", "flops", "bytes", "seconds")
_FURTHER = (
    *("model", "threads", "peak_gflops", "parallel_peak_gflops", "memory_gb_per_s"),
    *("inference_gflops", "inference_seconds"),
)
# What is the same in all rows of a measurement.
_SHARED = ("phone", "runtime", "scope", "seconds", *_FURTHER)
_GIGA = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A group of like operators: their class, number, and operations and bytes together."""

    operator_class: str
    operators: int
    flops: float
    bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One measured duration; see the module's rules.

    Attributes:
        peak_flops: the one-thread FP32 peak of the machine; ``memory_bytes_per_s`` its memory's bandwidth.
        parallel_peak_flops: the peak of the threads that trained together; ``peak_flops`` for one.
        inference_flops: operations of a prediction of the same batch; 0 where nobody says.
        inference_s: its seconds on the same machine; 0 where nobody timed it.
    """

    name: str
    phone: str
    runtime: str
    scope: Scope
    model: str
    threads: int
    seconds: float
    peak_flops: float
    parallel_peak_flops: float
    memory_bytes_per_s: float
    inference_flops: float
    inference_s: float
    work: tuple[Work, ...]


def read_measurements(path: Path) -> tuple[Measurement, ...]:
    """The measurements of a table, in the order in which they first appear.

    Raises:
        InputError: the file, a column or a cell is wrong; the message names the row.
    """
    rows: dict[str, list[Row]] = {}
    for row in file_rows(path, columns=COLUMNS):
        rows.setdefault(row.text("measurement"), []).append(row)
    return tuple(_measurement(name, own) for name, own in rows.items())


def write_measurements(measurements: Iterable[Measurement], path: Path, *, source: str = "") -> None:
    """Write a table that ``read_measurements`` reads.

    Args:
        measurements: in their order.
        path: the CSV file.
        source: how the figures were come by; it stands in the first row's last column.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*COLUMNS, *_FURTHER, "source"))
        for number, one in enumerate(measurements):
            shared = (one.model, one.threads, *(f"{figure:.6g}" for figure in _figures(one)))
            for place, work in enumerate(one.work):
                counts = (work.operators, f"{work.flops:.10g}", f"{work.bytes:.10g}", f"{one.seconds:.6g}")
                writer.writerow(
                    (
                        one.name,
                        one.phone,
                        one.runtime,
                        one.scope,
                        work.operator_class,
                        *counts,
                        *shared,
                        source if number + place == 0 else "",
                    )
                )


def _figures(one: Measurement) -> tuple[float, ...]:
    peaks = (one.peak_flops, one.parallel_peak_flops, one.memory_bytes_per_s, one.inference_flops)
    return (*(figure / _GIGA for figure in peaks), one.inference_s)


def _measurement(name: str, rows: Sequence[Row]) -> Measurement:
    first = rows[0]
    for row in rows[1:]:
        _require_same(name, first.cells, row)
    phone, scope = first.text("phone"), first.choice("scope", get_args(Scope))
    threads = _threads(first)
    peak_flops, parallel_peak_flops, memory_bytes_per_s = _machine(phone, first, threads=threads)
    return Measurement(
        name=name,
        phone=phone,
        runtime=first.text("runtime"),
        scope="step" if scope == "step" else "operators",
        model=(first.cells.get("model") or "").strip(),
        threads=threads,
        seconds=first.number("seconds"),
        peak_flops=peak_flops,
        parallel_peak_flops=parallel_peak_flops,
        memory_bytes_per_s=memory_bytes_per_s,
        inference_flops=_optional(first, "inference_gflops") * _GIGA,
        inference_s=_optional(first, "inference_seconds"),
        work=tuple(_work(row) for row in rows),
    )


def _require_same(name: str, shared: Mapping[str, str], row: Row) -> None:
    for column in _SHARED:
        if (row.cells.get(column) or "").strip() != (shared.get(column) or "").strip():
            raise InputError(
                f"{row.where}, column {column}: measurement {name!r} has {shared.get(column)!r} in its first row and "
                f"{row.cells.get(column)!r} here; give another measurement another name"
            )


def _work(row: Row) -> Work:
    count = row.number("operators")
    if not count.is_integer():
        raise InputError(f"{row.where}, column operators: must be a whole number, got {count:g}")
    return Work(
        operator_class=row.text("operator_class"),
        operators=int(count),
        flops=row.number("flops", positive=False),
        bytes=row.number("bytes", positive=False),
    )


def _threads(row: Row) -> int:
    threads = _optional(row, "threads") or 1.0
    if not threads.is_integer():
        raise InputError(f"{row.where}, column threads: must be a whole number, got {threads:g}")
    return int(threads)


def _machine(phone: str, row: Row, *, threads: int) -> tuple[float, float, float]:
    """Its peak, that of the threads, and its bandwidth: the row's own figures, or the catalogue's."""
    columns = ("peak_gflops", "parallel_peak_gflops", "memory_gb_per_s")
    peak, many, bandwidth = (_optional(row, column) * _GIGA for column in columns)
    if threads == 1:
        many = peak
    if peak and many and bandwidth:
        return peak, many, bandwidth
    try:
        known = find_phone(phone)
    except InputError as exc:
        raise InputError(
            f"{row.where}, column phone: {exc}; for another machine fill the columns peak_gflops (of one thread), "
            "memory_gb_per_s and, with more than one thread, parallel_peak_gflops"
        ) from exc
    return (
        peak or known.peak_flops_one_thread,
        many or shared_peak_flops(known, threads=threads),
        bandwidth or known.memory_bytes_per_s,
    )


def _optional(row: Row, column: str) -> float:
    """A figure that may be left out, for which 0 stands."""
    if not (row.cells.get(column) or "").strip():
        return 0.0
    return row.number(column, positive=False)
