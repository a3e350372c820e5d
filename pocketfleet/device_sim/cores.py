"""The CPU cores of a phone: clusters of equal ones, written as ``4xA510@1.704+4xA715@2.367+1xX3@2.914``.

Rules:

1. A cluster is cores x kind @ GHz, slow clusters first. The peak of one of its cores is its clock times the FP32
   operations a cycle of its kind (a fused multiply-add counts as two), from ``catalog/cores.csv``.
2. A kind that is not in that table is written as its number of operations a cycle: ``2x16@2.4``.
3. These peaks divide a phone's all-core peak between its cores (``threads.py``). The phone's own peaks are measured
   where somebody did, and may differ by a third: a kind's operations a cycle are not the same on every chip.
"""

import functools
import math
import re
from dataclasses import dataclass

from pocketfleet.device_sim.catalog import Row, packaged_rows
from pocketfleet.errors import InputError

__all__ = ["Cluster", "core_flop_per_cycle", "parse_clusters"]

_GIGA = 1e9
_CLUSTER = re.compile(r"(?P<cores>[1-9]\d*)x(?P<kind>[A-Za-z]\w*|\d+(?:\.\d+)?)@(?P<ghz>\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Equal cores that share a clock.

    Attributes:
        cores: how many, 1 or more.
        kind: a name of ``catalog/cores.csv``, or operations a cycle as a number.
        hertz: the top clock.
        peak_flops_one_thread: FP32 operations a second of one of its cores while all of them work.
    """

    cores: int
    kind: str
    hertz: float
    peak_flops_one_thread: float


@functools.cache
def core_flop_per_cycle() -> dict[str, float]:
    """FP32 operations a cycle by kind of core, from the packaged table."""
    return {row.text("kind"): row.number("flop_per_cycle") for row in packaged_rows("cores.csv")}


def parse_clusters(row: Row, column: str) -> tuple[Cluster, ...]:
    """The clusters of a cell, in its order.

    Raises:
        InputError: the cell is not of the form, names an unknown kind, or is not slow to fast.
    """
    clusters = tuple(_cluster(row, column, part) for part in row.text(column).split("+"))
    peaks = [cluster.peak_flops_one_thread for cluster in clusters]
    if peaks != sorted(peaks):
        raise InputError(f"{row.where}, column {column}: slow clusters come first, got {row.text(column)!r}")
    return clusters


def _cluster(row: Row, column: str, part: str) -> Cluster:
    match = _CLUSTER.fullmatch(part.strip())
    hertz = float(match["ghz"]) * _GIGA if match else 0.0
    if match is None or hertz == 0.0:
        raise InputError(
            f"{row.where}, column {column}: must be cores x kind @ GHz joined by +, "
            f"such as 4xA55@1.8+4xA78@2.4, got {part.strip()!r}"
        )
    flop_per_cycle = _flop_per_cycle(row, column, match["kind"])
    return Cluster(
        cores=int(match["cores"]), kind=match["kind"], hertz=hertz, peak_flops_one_thread=hertz * flop_per_cycle
    )


def _flop_per_cycle(row: Row, column: str, kind: str) -> float:
    known = core_flop_per_cycle()
    if kind in known:
        return known[kind]
    value = float(kind) if kind[0].isdigit() else math.nan
    if math.isnan(value) or value == 0.0:
        raise InputError(
            f"{row.where}, column {column}: there is no core {kind!r}; its kinds are {', '.join(known)}, "
            f"or write FP32 operations a cycle in its place, such as 2x16@2.4"
        )
    return value
