"""A phone model (hardware) and the catalogue of them, ``catalog/phones.csv``.

A ``Phone`` is what a maker sells; a device of a fleet is one unit of it (``fleet.py``). Rules:

1. Every figure of the catalogue has a source and a confidence: *measured* (a measurement of that phone), *read* (a
   file or page of that phone), *computed* (read or measured figures and a formula that the source gives) or
   *estimated* (its source names the rule). A source starts with a key of ``catalog/sources.csv``, an estimate's with
   ``rule:``. ``provenance.py`` counts them.
2. ``peak_flops_one_thread`` and ``compute_watts`` belong together: one thread on the phone's fastest core.
   The all-core figures belong together likewise; ``threads.py`` has the numbers between.
3. RAM is sold in GiB, so ``ram_gb`` counts 2**30 bytes; storage and bandwidth count 10**9.
4. The table holds what makers publish; a phone attains less. ``memory_bytes_per_s`` is a share of the memory's
   peak and ``charger_watts`` a share of the charger's, the same for every phone.
5. A user's table has the same columns. Its phones replace packaged ones of the same name or come after them.
"""

import difflib
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pocketfleet.device_sim.catalog import Row, file_rows, packaged_rows
from pocketfleet.device_sim.cores import Cluster, parse_clusters
from pocketfleet.device_sim.thermal_class import load_thermal_classes
from pocketfleet.errors import InputError

__all__ = ["FIGURES", "Confidence", "Phone", "find_phone", "load_catalogue", "load_phones"]

Confidence = Literal["measured", "read", "computed", "estimated"]

# The columns of figures; each has a <column>_source and a <column>_confidence beside it.
FIGURES = (
    "clusters",
    "peak_gflops_one_thread",
    "peak_gflops_all_cores",
    "memory_bandwidth_gb_per_s",
    "ram_gb",
    "free_ram_gb",
    "storage_gb",
    "battery_wh",
    "cpu_watts",
    "cpu_watts_all_cores",
    "idle_watts",
    "screen_watts",
    "wifi_rx_watts",
    "wifi_tx_watts",
    "modem_rx_watts",
    "modem_tx_watts",
    "charger_watts",
    "thermal_class",
)
_GIGA = 1e9
_GIB = 2.0**30
_JOULES_PER_WH = 3600.0
# Assumed: the share of the memory's published peak that a training program's reads and writes attain.
ATTAINABLE_BANDWIDTH_RATIO = 0.5
# Assumed: the mean over a charge of a charger's published watts, which a phone takes only while nearly empty and cool.
MEAN_CHARGE_RATIO = 0.6
# A field of ``Phone``: its column and the factor to its unit.
_NUMBERS: dict[str, tuple[str, float]] = {
    "peak_flops_one_thread": ("peak_gflops_one_thread", _GIGA),
    "peak_flops_all_cores": ("peak_gflops_all_cores", _GIGA),
    "memory_bytes_per_s": ("memory_bandwidth_gb_per_s", _GIGA * ATTAINABLE_BANDWIDTH_RATIO),
    "ram_bytes": ("ram_gb", _GIB),
    "free_memory_bytes": ("free_ram_gb", _GIB),
    "storage_bytes": ("storage_gb", _GIGA),
    "battery_joules": ("battery_wh", _JOULES_PER_WH),
    "compute_watts": ("cpu_watts", 1.0),
    "compute_watts_all_cores": ("cpu_watts_all_cores", 1.0),
    "idle_watts": ("idle_watts", 1.0),
    "screen_watts": ("screen_watts", 1.0),
    "receive_watts": ("wifi_rx_watts", 1.0),
    "transmit_watts": ("wifi_tx_watts", 1.0),
    "modem_receive_watts": ("modem_rx_watts", 1.0),
    "modem_transmit_watts": ("modem_tx_watts", 1.0),
    "charger_watts": ("charger_watts", MEAN_CHARGE_RATIO),
}
_FIELDS = {column: field for field, (column, _) in _NUMBERS.items()}
# Of each pair of columns the first must not be over the second.
_NOT_OVER = (
    ("peak_gflops_one_thread", "peak_gflops_all_cores"),
    ("cpu_watts", "cpu_watts_all_cores"),
    ("free_ram_gb", "ram_gb"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phone:
    """One phone model in base units.

    Attributes:
        clusters: its cores, slow ones first.
        peak_flops_one_thread: FP32 operations a second of one thread on the fastest core, a fused
            multiply-add counting as two.
        peak_flops_all_cores: the same of all cores together; a peak, not sustained.
        memory_bytes_per_s: bandwidth of the memory that training can hope for.
        free_memory_bytes: what the operating system and resident apps leave of ``ram_bytes``.
        storage_bytes: the whole of a common variant, not what is free.
        compute_watts: drawn above idle while one thread trains on the fastest core.
        compute_watts_all_cores: the same for all cores.
        idle_watts: drawn with the screen off and nothing running.
        screen_watts: drawn above idle by the screen at middling brightness.
        receive_watts: drawn above idle while Wi-Fi receives; ``transmit_watts`` while it sends.
        modem_receive_watts: drawn above idle while the cellular modem receives; ``modem_transmit_watts`` while it
            sends, at a middling level of transmission.
        charger_watts: what the charger puts into the phone, as a mean over a charge.
        thermal_class: a name of ``thermal_class.load_thermal_classes()``.
    """

    name: str
    year: int
    soc: str
    clusters: tuple[Cluster, ...]
    peak_flops_one_thread: float
    peak_flops_all_cores: float
    memory_bytes_per_s: float
    ram_bytes: float
    free_memory_bytes: float
    storage_bytes: float
    battery_joules: float
    compute_watts: float
    compute_watts_all_cores: float
    idle_watts: float
    screen_watts: float
    receive_watts: float
    transmit_watts: float
    modem_receive_watts: float
    modem_transmit_watts: float
    charger_watts: float
    thermal_class: str


def load_phones(path: Path | None = None) -> tuple[Phone, ...]:
    """The phones of the packaged catalogue, or of a user's table with the same columns.

    Raises:
        InputError: a cell is wrong (the message names row and column), or two rows share a name.
    """
    if path is None:
        return _packaged_phones()
    columns = ("name", "year", "soc", *_figure_columns())
    return _phones(file_rows(path, columns=columns))


def load_catalogue(path: Path | None = None) -> tuple[Phone, ...]:
    """The packaged phones, with those of a user's table in place of their namesakes and, if new, after them.

    Raises:
        InputError: as ``load_phones``.
    """
    packaged = _packaged_phones()
    if path is None:
        return packaged
    own = {phone.name: phone for phone in load_phones(path)}
    replaced = tuple(own.pop(phone.name, phone) for phone in packaged)
    return (*replaced, *own.values())


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
        clusters=parse_clusters(row, "clusters"),
        thermal_class=row.choice("thermal_class", [each.name for each in load_thermal_classes()]),
        **{field: row.number(column) * factor for field, (column, factor) in _NUMBERS.items()},
    )
    _check(row, phone)
    return phone


def _check(row: Row, phone: Phone) -> None:
    for smaller, larger in _NOT_OVER:
        if getattr(phone, _FIELDS[smaller]) > getattr(phone, _FIELDS[larger]):
            bound = f"must not be over {larger} ({row.text(larger)})"
            raise InputError(f"{row.where}, column {smaller}: {bound}, got {row.text(smaller)}")
