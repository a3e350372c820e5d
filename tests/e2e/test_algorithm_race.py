"""benchmarks/algorithms.py asserts what it measures: algorithms against skew need fewer rounds than averaging."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
