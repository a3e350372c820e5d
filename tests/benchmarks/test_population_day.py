"""What the benchmark says is met is what its rows say."""

import sys
from pathlib import Path
from typing import Any

import pytest

from pocketfleet import Bundle, Experiment, simulate

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from population_day import check_work, met, one_page

GIGA = 10**9


def row(devices: int, *, wall_s: float, memory_bytes: int, device_rounds: int = 1) -> dict[str, Any]:
    return {
        "devices": devices,
        "device_rounds": device_rounds,
        "wall_s": wall_s,
        "peak_memory_bytes": memory_bytes,
    }


SMALL = row(10_000, wall_s=5.9, memory_bytes=GIGA // 2)
LARGE = row(1_000_000, wall_s=59.0, memory_bytes=14 * GIGA // 10, device_rounds=300_000)


def test_all_is_met_and_nothing_raised() -> None:
    # In any order of sizes: a hundred times the devices in ten times the seconds and 2.8 times the memory.
    holds = met([LARGE, SMALL], [{"page_s": 19.9}], 20.0)
    assert len(holds) == 8
    assert all(holds.values())
    check_work(holds)


@pytest.mark.parametrize(
    ("rows", "page_s", "ratio", "missed"),
    [
        ([SMALL, {**LARGE, "wall_s": 60.0}], 1.0, 25.0, {"million_seconds"}),
        ([SMALL, {**LARGE, "peak_memory_bytes": 3 * GIGA // 2}], 1.0, 25.0, {"million_memory"}),
        ([{**SMALL, "wall_s": 6.0}, LARGE], 1.0, 25.0, {"10000_seconds"}),
        ([SMALL, LARGE], 20.0, 25.0, {"page_seconds"}),
        ([SMALL, LARGE], 1.0, 19.9, {"coordinator"}),
    ],
)
def test_seconds_and_memory_that_are_missed_are_told(
    rows: list[dict[str, Any]], page_s: float, ratio: float, missed: set[str]
) -> None:
    holds = met(rows, [{"page_s": page_s}], ratio)
    assert {name for name, held in holds.items() if not held} == missed
    check_work(holds)


@pytest.mark.parametrize(
    ("rows", "missed"),
    [
        ([SMALL, {**LARGE, "device_rounds": 299_999}], "million_work"),
        # A tenfold population in eleven times the seconds, or the memory.
        ([row(10, wall_s=1.0, memory_bytes=10), row(100, wall_s=11.0, memory_bytes=10)], "growth_seconds"),
        ([row(10, wall_s=1.0, memory_bytes=10), row(100, wall_s=1.0, memory_bytes=110)], "growth_memory"),
    ],
)
def test_work_and_growth_that_are_missed_are_raised(rows: list[dict[str, Any]], missed: str) -> None:
    holds = met(rows, [], 25.0)
    assert not holds[missed]
    with pytest.raises(AssertionError, match=f"not met: {missed}$"):
        check_work(holds)


def test_a_page_is_timed(boston_bundle: Bundle, tmp_path: Path) -> None:
    settings = [f"task.bundle='{boston_bundle.path}'", "engine.timing_only=true", "rounds.count=2", "fleet.devices=40"]
    run = simulate(Experiment.load("boston-fleet", [*settings, "fleet.availability=always"]), tmp_path / "run")
    timed = one_page(run.path)
    assert timed["page_of_devices"] == 40
    assert timed["page_s"] > 0.0
    # Its style sheet alone is some kilobytes.
    assert timed["page_bytes"] > 10_000
