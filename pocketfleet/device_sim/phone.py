"""A phone model (hardware) and the catalogue of them, ``catalog/phones.csv``.

A ``Phone`` is what a maker sells; a device of a fleet is one unit of it (``fleet.py``). Rules:

1. Every figure of the catalogue has a source and a confidence: *measured* (a measurement of that
   phone), *read* (a file or page of that phone), *computed* (public clocks times measured constants) or
   *estimated* (its source names the rule).
2. ``peak_flops_one_thread`` and ``compute_watts`` belong together: one thread on the phone's fastest core.
   The all-core figures belong together likewise.
3. RAM is sold in GiB, so ``ram_gb`` counts 2**30 bytes; bandwidth is in 10**9 bytes a second.
"""

import difflib
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pocketfleet.device_sim.catalog import Row, file_rows, packaged_rows
from pocketfleet.errors import InputError

__all__ = ["FIGURES", "Confidence", "Phone", "find_phone", "load_phones"]

Confidence = Literal["measured", "read", "computed", "estimated"]

# The columns of figures; each has a <column>_source and a <column>_confidence beside it.
FIGURES = (
    "peak_gflops_one_thread",
    "peak_gflops_all_cores",
    "memory_bandwidth_gb_per_s",
    "ram_gb",
    "free_ram_gb",
    "battery_wh",
    "cpu_watts",
    "cpu_watts_all_cores",
    "idle_watts",
    "screen_watts",
    "wifi_rx_watts",
    "wifi_tx_watts",
    "charger_watts",
)
_GIGA = 1e9
_GIB = 2.0**30
_JOULES_PER_WH = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Phone:
    """One phone model in base units.

    Attributes:
        peak_flops_one_thread: FP32 operations a second of one thread on the fastest core, a fused
            multiply-add counting as two.
        peak_flops_all_cores: the same of all cores together; a peak, not sustained.
        memory_bytes_per_s: bandwidth of the memory that training can hope for.
        free_memory_bytes: what the operating system and resident apps leave of ``ram_bytes``.
        compute_watts: drawn above idle while one thread trains on the fastest core.
        compute_watts_all_cores: the same for all cores.
        idle_watts: drawn with the screen off and nothing running.
        screen_watts: drawn above idle by the screen at middling brightness.
        receive_watts: drawn above idle while Wi-Fi receives; ``transmit_watts`` while it sends.
        charger_watts: what the charger puts into the phone at most.
    """

    name: str
    year: int
    soc: str
    peak_flops_one_thread: float
    peak_flops_all_cores: float
    memory_bytes_per_s: float
    ram_bytes: float
    free_memory_bytes: float
    battery_joules: float
    compute_watts: float
    compute_watts_all_cores: float
    idle_watts: float
    screen_watts: float
    receive_watts: float
    transmit_watts: float
    charger_watts: float


def load_phones(path: Path | None = None) -> tuple[Phone, ...]:
    """The phones of the packaged catalogue, or of a user's table with the same columns.

    Raises:
        InputError: a cell is wrong (the message names row and column), or two rows share a name.
    """
    if path is None:
        return _packaged_phones()
    columns = ("name", "year", "soc", *_figure_columns())
    return _phones(file_rows(path, columns=columns))


def find_phone(name: str, phones: tuple[Phone, ...] | None = None) -> Phone:
    """The phone of that exact name, from ``phones`` or the packaged catalogue.

    Raises:
        InputError: there is none; the message lists close names.
    """
    catalogue = load_phones() if phones is None else phones
    for phone in catalogue:
        if phone.name == name:
            return phone
    raise InputError(f"there is no phone {name!r} in the catalogue; {_suggestion(name, catalogue)}")


def _suggestion(name: str, phones: tuple[Phone, ...]) -> str:
    lowered = {phone.name.lower(): phone.name for phone in phones}
    close = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)
    if close:
        return f"close names: {', '.join(lowered[match] for match in close)}"
    return f"its names: {', '.join(lowered.values())}"


@functools.cache
def _packaged_phones() -> tuple[Phone, ...]:
    return _phones(packaged_rows("phones.csv"))


def _figure_columns() -> tuple[str, ...]:
    return tuple(figure + suffix for figure in FIGURES for suffix in ("", "_source", "_confidence"))


def _phones(rows: tuple[Row, ...]) -> tuple[Phone, ...]:
    seen: set[str] = set()
    phones = []
    for row in rows:
        phone = _phone(row)
        if phone.name in seen:
            raise InputError(f"{row.where}, column name: {phone.name!r} is there twice; a name is unique")
        seen.add(phone.name)
        phones.append(phone)
    return tuple(phones)


def _phone(row: Row) -> Phone:
    for figure in FIGURES:
        row.text(f"{figure}_source")
        row.choice(f"{figure}_confidence", get_args(Confidence))
    phone = Phone(
        name=row.text("name"),
        year=int(row.number("year")),
        soc=row.text("soc"),
        peak_flops_one_thread=row.number("peak_gflops_one_thread") * _GIGA,
        peak_flops_all_cores=row.number("peak_gflops_all_cores") * _GIGA,
        memory_bytes_per_s=row.number("memory_bandwidth_gb_per_s") * _GIGA,
        ram_bytes=row.number("ram_gb") * _GIB,
        free_memory_bytes=row.number("free_ram_gb") * _GIB,
        battery_joules=row.number("battery_wh") * _JOULES_PER_WH,
        compute_watts=row.number("cpu_watts"),
        compute_watts_all_cores=row.number("cpu_watts_all_cores"),
        idle_watts=row.number("idle_watts"),
        screen_watts=row.number("screen_watts"),
        receive_watts=row.number("wifi_rx_watts"),
        transmit_watts=row.number("wifi_tx_watts"),
        charger_watts=row.number("charger_watts"),
    )
    if phone.peak_flops_all_cores < phone.peak_flops_one_thread:
        raise InputError(f"{row.where}, column peak_gflops_all_cores: must not be under peak_gflops_one_thread")
    if phone.free_memory_bytes > phone.ram_bytes:
        raise InputError(f"{row.where}, column free_ram_gb: must not be over ram_gb")
    return phone
