import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from large_cohort import Size, compared  # noqa: E402


def test_a_size_is_three_numbers() -> None:
    assert Size.of("40/16/2") == Size(devices=40, cohort=16, rounds=2)
    for wrong in ("40/16", "40/0/2", "many/16/2"):
        with pytest.raises(argparse.ArgumentTypeError, match="a size is DEVICES/COHORT/ROUNDS"):
            Size.of(wrong)


def test_the_last_size_is_held_against_the_first() -> None:
    def row(devices: int, speed: float, peak_bytes: int) -> dict[str, float]:
        return {
            "devices": devices,
            "device_steps_per_s": speed,
            "peak_bytes": peak_bytes,
            "peak_own_bytes": peak_bytes // 2,
        }

    rows = [row(10, 100.0, 1), row(20, 70.0, 10**9), row(10, 100.0, 1), row(20, 90.0, 3 * 10**9)]
    found = compared(rows)

    # The median of 70 and 90 against 100; the greater of two peaks against 2 GB.
    assert (found["throughput_ratio"], found["throughput_met"]) == (0.8, True)
    assert (found["peak_ratio"], found["peak_met"], found["peak_own_bytes"]) == (1.5, False, 1_500_000_000)


def test_every_size_does_its_work_in_a_process_of_its_own() -> None:
    command = [sys.executable, str(BENCHMARKS / "large_cohort.py"), "--repeats", "1", "--sizes", "16/16/2", "40/16/2"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    small, large, found = [json.loads(line) for line in done.stdout.splitlines()]

    assert [(row["devices"], row["cohort"], row["rounds"]) for row in (small, large)] == [(16, 16, 2), (40, 16, 2)]
    # 16 devices, 2 rounds, 10 steps.
    assert small["device_steps"] == large["device_steps"] == 320
    assert large["device_steps_per_s"] == pytest.approx(320 / large["wall_s"])
    assert large["around_s"] > 0.0
    # Three processes that have loaded torch.
    assert large["peak_bytes"] > large["peak_own_bytes"] > 3 * 50_000_000
    assert found["throughput_ratio"] == pytest.approx(large["device_steps_per_s"] / small["device_steps_per_s"])
