import re
import statistics
from pathlib import Path

import pytest

from pocketfleet.device_sim.catalog import Row, packaged_rows
from pocketfleet.device_sim.cores import parse_clusters
from pocketfleet.device_sim.phone import FIGURES
from pocketfleet.device_sim.provenance import (
    citations,
    confidence_counts,
    estimated_ratio,
    page_tables,
    renewed_page,
)
from pocketfleet.errors import InputError

PAGE = Path(__file__).parents[2] / "docs" / "phones.md"


def test_at_most_a_third_of_the_figures_is_estimated() -> None:
    assert estimated_ratio() <= 1 / 3
    counts = confidence_counts()
    assert tuple(counts) == FIGURES
    assert {count.total() for count in counts.values()} == {len(packaged_rows("phones.csv"))}


def test_an_estimate_names_its_rule_and_nothing_else_does() -> None:
    seen = set()
    for row in packaged_rows("phones.csv"):
        for figure in FIGURES:
            confidence = row.text(f"{figure}_confidence")
            source = row.text(f"{figure}_source")
            seen.add(confidence)
            assert source.startswith("rule: ") == (confidence == "estimated"), (row.where, figure)
    assert seen == {"measured", "read", "computed", "estimated"}


def figures(confidence: str) -> list[tuple[Row, str, float, str]]:
    """Row, column, value and source of the numbers of one confidence."""
    return [
        (row, figure, row.number(figure), row.text(f"{figure}_source"))
        for row in packaged_rows("phones.csv")
        for figure in FIGURES
        if figure not in {"clusters", "thermal_class"} and row.text(f"{figure}_confidence") == confidence
    ]


def test_a_current_times_a_voltage_is_the_figure() -> None:
    checked = 0
    for row, figure, value, source in figures("computed"):
        milliamperes = re.search(
            r"([\d.]+|\([\d. +]+\)) mAh? (?:of all cores at their top clocks )?x ([\d.]+) V", source
        )
        if milliamperes is None:
            continue
        total = sum(float(part) for part in milliamperes[1].strip("()").split("+"))
        # Rounded to 0.01 W or Wh, a sum of currents to 1 mA before; idle to a milliwatt.
        rounding = 0.0006 if figure == "idle_watts" else 0.0075
        expected = total / 1000 * float(milliamperes[2])
        assert value == pytest.approx(expected, abs=rounding), (row.where, figure)
        checked += 1
    # Battery, idle, screen, Wi-Fi and modem of most phones.
    assert checked > 300


def test_a_computed_peak_is_that_of_its_clusters() -> None:
    checked = 0
    for row, figure, value, source in figures("computed"):
        if not source.startswith("cores: "):
            continue
        peaks = [(each.cores, each.peak_flops_one_thread / 1e9) for each in parse_clusters(row, "clusters")]
        all_cores = figure == "peak_gflops_all_cores"
        expected = sum(cores * peak for cores, peak in peaks) if all_cores else peaks[-1][1]
        # Some clocks are told rounded.
        assert value == pytest.approx(expected, rel=0.025), (row.where, figure)
        checked += 1
    assert checked > 60


def test_an_estimated_median_is_the_median() -> None:
    checked = 0
    known: dict[str, list[float]] = {}
    for confidence in ("measured", "read", "computed"):
        for _, figure, value, _ in figures(confidence):
            known.setdefault(figure, []).append(value)
    for row, figure, value, source in figures("estimated"):
        if source == "rule: the median of this table's phones where it is not estimated":
            assert value == pytest.approx(statistics.median(known[figure]), abs=0.0051), (row.where, figure)
            checked += 1
        if source.startswith("rule: 0.35 of RAM"):
            assert value == pytest.approx(0.35 * row.number("ram_gb")), row.where
            checked += 1
    assert checked > 100


def test_every_key_has_a_citation_and_every_citation_is_used() -> None:
    phones = [row.text(f"{figure}_source") for row in packaged_rows("phones.csv") for figure in FIGURES]
    mixes = [row.text("source") for row in packaged_rows("mixes.csv")]
    keys = {source.split(": ")[0] for source in phones + mixes} - {"rule", "assumed"}
    known = citations()
    assert keys <= set(known)
    everything = "\n".join(phones + mixes)
    assert [key for key in known if key not in everything] == []
    assert all(len(citation) > 20 for citation in known.values())


def test_the_page_is_that_of_the_files() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert renewed_page(page) == page, "run python -m pocketfleet.device_sim.provenance docs/phones.md"


def test_a_page_is_renewed_between_its_marks() -> None:
    blank = "Phones\n" + "".join(f"<!-- {name} -->\nlast year\n<!-- /{name} -->\ntext\n" for name in page_tables())
    page = renewed_page(blank)
    assert "last year" not in page
    assert page.count("\ntext\n") == blank.count("\ntext\n")
    assert page_tables()["known"] in page
    with pytest.raises(InputError, match="lacks the marks <!-- summary --> and <!-- /summary -->"):
        renewed_page("Phones\n")
