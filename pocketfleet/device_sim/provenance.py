"""How the figures of the phone catalogue are known, and the tables that ``docs/phones.md`` shows of it.

Rules:

1. A cell is a figure of a phone; its confidence is one of ``phone.Confidence``. Counted are all of them, by column.
2. The page's tables stand between ``<!-- name -->`` and ``<!-- /name -->`` and are made of the catalogue's files:
   ``python -m pocketfleet.device_sim.provenance docs/phones.md`` renews them.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

from pocketfleet.device_sim.catalog import Row, packaged_rows
from pocketfleet.device_sim.mix import load_mix, mix_names, weighted_quantile
from pocketfleet.device_sim.phone import FIGURES, Confidence, find_phone, load_phones
from pocketfleet.device_sim.thermal_class import load_thermal_classes
from pocketfleet.errors import InputError

__all__ = ["citations", "confidence_counts", "estimated_ratio", "page_tables", "renewed_page"]

# The quantiles between which a mix's spread of speed is told, as AI Benchmark's in the mixes' sources.
_SPREAD = (0.05, 0.95)


def citations() -> dict[str, str]:
    """The full citation of each key that a source of the catalogue starts with."""
    return {row.text("key"): row.text("citation") for row in packaged_rows("sources.csv")}


def confidence_counts() -> dict[str, Counter[str]]:
    """How many phones have each column's figure by each confidence."""
    rows = packaged_rows("phones.csv")
    return {figure: Counter(row.text(f"{figure}_confidence") for row in rows) for figure in FIGURES}


def estimated_ratio() -> float:
    """The share of estimated cells among all."""
    total: Counter[str] = sum(confidence_counts().values(), Counter())
    return total["estimated"] / total.total()


def page_tables() -> dict[str, str]:
    """The page's tables by name, as Markdown without the marks around them."""
    return {
        "summary": _summary(),
        "known": _known(),
        "mixes": _mixes(),
        "thermal": _thermal(),
        "phones": _phones(),
        "sources": _table(("key", "citation"), [(f"`{key}`", citation) for key, citation in citations().items()]),
    }


def renewed_page(page: str) -> str:
    """The page with its tables as the catalogue is now.

    Raises:
        InputError: the page lacks the marks of a table.
    """
    for name, table in page_tables().items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, opened, rest = page.partition(start)
        _, closed, after = rest.partition(end)
        if not (opened and closed):
            raise InputError(f"the page lacks the marks <!-- {name} --> and <!-- /{name} --> around its table")
        page = f"{before}{start}{table}\n{end}{after}"
    return page


def _summary() -> str:
    phones = load_phones()
    years = [phone.year for phone in phones]
    return (
        f"{len(phones)} phones of {min(years)} to {max(years)}, {len(FIGURES)} figures each; "
        f"{100 * estimated_ratio():.1f} % of the figures are estimated."
    )


def _known() -> str:
    kinds: Sequence[str] = get_args(Confidence)
    counts = confidence_counts()
    rows = [
        (f"`{figure}`", *(str(count[kind]) for kind in kinds), f"{count['estimated'] / count.total():.0%}")
        for figure, count in counts.items()
    ]
    return _table(("column", *kinds, "estimated, share"), rows)


def _mixes() -> str:
    return _table(
        ("mix", "phones", "p5, GFLOP/s", "median, GFLOP/s", "p95, GFLOP/s", "p95/p5", "weights"),
        [_mix(name) for name in mix_names()],
    )


def _mix(name: str) -> tuple[str, ...]:
    weights = load_mix(name)
    peaks = [find_phone(phone).peak_flops_one_thread / 1e9 for phone in weights]
    low, middle, high = (weighted_quantile(peaks, weights.values(), at) for at in (_SPREAD[0], 0.5, _SPREAD[1]))
    sources = {row.text("source").split(":")[0] for row in packaged_rows("mixes.csv") if row.text("mix") == name}
    return (
        f"`{name}`",
        str(len(weights)),
        *(f"{peak:.1f}" for peak in (low, middle, high)),
        f"{high / low:.1f}",
        ", ".join(sorted(source if source == "assumed" else f"`{source}`" for source in sources)),
    )


def _thermal() -> str:
    shares = Counter(phone.thermal_class for phone in load_phones())
    rows = [
        (
            each.name,
            f"{each.skin_kelvin_per_watt:g}",
            f"{each.time_constant_s:g}",
            f"{each.sustained_watts:.1f}",
            str(shares[each.name]),
        )
        for each in load_thermal_classes()
    ]
    return _table(("class", "skin, K/W", "time constant, s", "sustained, W", "phones"), rows)


# Columns of the page's list of phones; the file has the others.
_LISTED = {
    "phone": "name",
    "year": "year",
    "SoC": "soc",
    "cores": "clusters",
    "GFLOP/s, one thread": "peak_gflops_one_thread",
    "all cores": "peak_gflops_all_cores",
    "RAM, GiB": "ram_gb",
    "storage, GB": "storage_gb",
    "battery, Wh": "battery_wh",
    "CPU W, one thread": "cpu_watts",
    "all cores, W": "cpu_watts_all_cores",
    "charger, W": "charger_watts",
    "case": "thermal_class",
}


def _phones() -> str:
    return _table(tuple(_LISTED), [_listed(row) for row in packaged_rows("phones.csv")])


def _listed(row: Row) -> tuple[str, ...]:
    """A row's cells, an estimated one with a tilde."""
    return tuple(
        ("~" if row.cells.get(f"{column}_confidence") == "estimated" else "") + row.text(column)
        for column in _LISTED.values()
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Renew the tables of the page that the command line names."""
    path = Path(sys.argv[1])
    path.write_text(renewed_page(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
