"""benchmarks/algorithms.py asserts what it measures: algorithms against skew need fewer rounds than averaging."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pocketfleet import Bundle, Experiment

sys.path.append(str(Path(__file__).parents[2]))
from benchmarks.algorithms import Best, Race, best, check_digits, check_skew, rounds_to_goal, run, told

ROOT = Path(__file__).parents[2]


def raced(out: Path, *arguments: str) -> dict[str, dict[str, float]]:
    """Rounds to the goal by race and runner, each at its best rate."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "algorithms.py", *arguments, "--json", out],
        cwd=out.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, dict[str, float]] = json.loads(out.read_text())
    return found


def test_scaffold_and_feddyn_beat_averaging_where_every_device_has_one_class(tmp_path: Path) -> None:
    rounds = raced(tmp_path / "quick.json", "--quick")["skew"]
    assert rounds["scaffold"] < rounds["fedavg"]
    assert rounds["feddyn, alpha 0.01"] < rounds["fedavg"]


@pytest.mark.long
def test_over_the_whole_grid_they_do_and_averaging_beats_single_gradients_tenfold(tmp_path: Path) -> None:
    rounds = raced(tmp_path / "whole.json")
    assert rounds["skew"]["scaffold"] < rounds["skew"]["fedavg"]
    assert min(rounds["skew"]["feddyn, alpha 0.01"], rounds["skew"]["feddyn, alpha 0.1"]) < rounds["skew"]["fedavg"]
    assert rounds["digits"]["fedsgd"] >= 10 * rounds["digits"]["fedavg"]


@pytest.fixture
def race(boston_bundle: Bundle) -> Race:
    """Of single gradients, whose model is measured every third round; each device's examples are one batch."""
    return Race(
        table={
            "task": {"name": "boston", "bundle": str(boston_bundle.path)},
            "fleet": {"devices": 60, "availability": "always"},
            "training": {"learning_rate": 0.001, "personalised": False},
            "algorithm": {"name": "fedsgd"},
            "rounds": {"cohort": 10, "over_selection": 1.0, "minimum_ratio": 1.0, "evaluate_every": 3, "count": 4},
            "engine": {"plan": "batched", "processes": 1},
        },
        metric="test_loss",
        # Any loss will do.
        goal=1e9,
        limit=4,
        runners={"fedsgd": []},
        rates=[0.001],
        quick={},
    )


def test_a_goal_is_met_by_the_first_model_that_is_measured(race: Race, tmp_path: Path) -> None:
    assert rounds_to_goal(race, Experiment.from_table(race.table), tmp_path / "run") == 3


def test_a_metric_that_no_row_holds_is_no_goal_missed(race: Race, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="test_accuracy"):
        rounds_to_goal(replace(race, metric="test_accuracy"), Experiment.from_table(race.table), tmp_path / "run")


def test_who_is_not_at_the_goal_needs_more_than_the_limit(
    race: Race, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A loss below zero is nowhere; at the second rate the first steps leave float32.
    race = replace(race, goal=-1.0, rates=[0.001, 1e30])
    rows = run(race, tmp_path, seeds=[1], quick=False)
    assert [row["rounds"] for row in rows] == [None, None]
    first, second = capsys.readouterr().out.splitlines()
    assert first == "fedsgd, rate 0.001, seed 1: not in 4"
    assert second.startswith("fedsgd, rate 1e+30, seed 1: training diverged in round ")
    assert {name: str(value) for name, value in best(rows, limit=race.limit).items()} == {"fedsgd": "more than 4"}


def rows_of(counts: Mapping[str, Mapping[float, list[int | None]]]) -> list[dict[str, object]]:
    """As ``run`` gives them, by runner, rate and seed."""
    return [
        {"runner": runner, "rate": rate, "seed": seed, "rounds": count}
        for runner, rates in counts.items()
        for rate, seeds in rates.items()
        for seed, count in enumerate(seeds)
    ]


def test_the_best_rate_is_one_at_which_every_seed_is_at_the_goal() -> None:
    found = best(
        rows_of(
            {
                "steady": {0.1: [2, None], 0.3: [12, 18], 1.0: [20, 20]},
                "half": {0.1: [4, None], 0.3: [None, None]},
                "never": {0.1: [None, None]},
            }
        ),
        limit=100,
    )
    # (12 + 18) / 2; 4 and more than 100 are more than 52 on average.
    assert told(found) == {"steady": 15.0, "half": "more than 52", "never": "more than 100"}
    assert found["steady"].beats(found["half"])
    assert not found["half"].beats(found["never"])


def test_the_checks_take_more_than_the_limit_for_the_least_that_it_may_be() -> None:
    check_digits({"fedavg": Best(40.0, reached=True), "fedsgd": Best(400.0, reached=False)})
    with pytest.raises(AssertionError):
        check_digits({"fedavg": Best(41.0, reached=True), "fedsgd": Best(400.0, reached=False)})
    with pytest.raises(AssertionError):
        check_digits({"fedavg": Best(4.0, reached=False), "fedsgd": Best(400.0, reached=True)})
    fast, never = Best(10.0, reached=True), Best(100.0, reached=False)
    check_skew({"fedavg": never, "scaffold": fast, "feddyn, alpha 0.01": never, "feddyn, alpha 0.1": fast})
    with pytest.raises(AssertionError):
        check_skew({"fedavg": fast, "scaffold": never, "feddyn, alpha 0.1": fast})
