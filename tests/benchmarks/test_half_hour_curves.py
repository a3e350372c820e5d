"""The curves of docs/heat.md are those that the benchmark draws now."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from half_hour_curves import PHONES, half_hour  # noqa: E402

# Half a unit of the last digit that the page shows, and a little.
WATTS, CELSIUS, RATIO = 0.0051, 0.051, 0.0051


def page_rows() -> dict[tuple[str, str], list[float]]:
    """The table of the page, by phone and load: watts at first, hottest, mean speed, battery after."""
    after = (ROOT / "docs" / "heat.md").read_text().partition("| phone | case | load |")[2]
    rows = {}
    for line in after.splitlines()[2:]:
        if not line.startswith("|"):
            break
        phone, _, load, *numbers = (cell.strip() for cell in line.strip("|").split("|"))
        rows[phone, load] = [float(number) for number in numbers]
    return rows


def test_the_pages_table_is_what_half_an_hour_comes_to() -> None:
    told = page_rows()
    assert set(told) == {(phone, load) for phone in PHONES for load in ("one thread", "all cores")}
    for load in ("one thread", "all cores"):
        curves = half_hour(load, room_celsius=25.0)
        for number, phone in enumerate(PHONES):
            watts, hottest, speed, battery = told[phone, load]
            assert curves["watts"][0, number] == pytest.approx(watts, abs=WATTS), (phone, load)
            assert curves["celsius"][:, number].max() == pytest.approx(hottest, abs=CELSIUS), (phone, load)
            assert curves["speed"][:, number].mean() == pytest.approx(speed, abs=RATIO), (phone, load)
            assert curves["battery"][-1, number] == pytest.approx(battery, abs=RATIO), (phone, load)
