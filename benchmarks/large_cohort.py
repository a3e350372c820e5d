"""Large cohorts of a large population: 5,000 a round of 100,000 devices with data, against 1,000 of 1,000.

Each run is a fresh process that trains the task ``synthetic``, 13 numbers into one by an MLP with hidden layers of 64
and 32, 10 steps of batch 16 a device: one pass of its data. Every phone is there and finishes, so that a run asserts
its work: so many device-steps, and a lower loss. What is made once and kept is made before, in a process of its own:
the export, and the large population's file in the cache (1.1 GB at 100,000 devices; here the cache is a temporary one).

Seconds are of the simulation alone; *around* it are reading data, building the fleet, starting processes and joining
tables. Memory is what the main process and its worker processes have together when a round closes, at most: what they
share, libraries and the mapped data, counted once (``Pss`` of Linux). The mapped data are a file's pages, which the
kernel takes away again where memory is short: what is the processes' own is told beside.
Nothing is asserted of seconds or bytes; the last row says what is wanted of them.

Usage: python benchmarks/large_cohort.py [--sizes 1000/1000/25 100000/5000/5] [--repeats 3] [--processes 2]
"""

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pocketfleet import Experiment, simulate
from pocketfleet.training.task import load_task

# A device holds one in five of its examples out and trains on the rest.
STEPS, BATCH_SIZE = 10, 16
EXAMPLES = STEPS * BATCH_SIZE * 5 // 4
# Of the largest size: peak memory under so many bytes, and this share of the first size's throughput or more.
WANTED_BYTES = 2e9
WANTED_THROUGHPUT = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """``cohort`` of ``devices`` a round."""

    devices: int
    cohort: int
    rounds: int

    @classmethod
    def of(cls, text: str) -> Self:
        """Of ``DEVICES/COHORT/ROUNDS``.

        Raises:
            ArgumentTypeError: it is not three numbers above 0.
        """
        if not re.fullmatch(r"[1-9]\d*/[1-9]\d*/[1-9]\d*", text):
            raise argparse.ArgumentTypeError(f"a size is DEVICES/COHORT/ROUNDS, such as 1000/1000/25, got {text!r}")
        devices, cohort, rounds = map(int, text.split("/"))
        return cls(devices=devices, cohort=cohort, rounds=rounds)

    def __str__(self) -> str:
        return f"{self.devices}/{self.cohort}/{self.rounds}"


# As many device-steps, 250,000, of both.
SIZES = (Size(devices=1_000, cohort=1_000, rounds=25), Size(devices=100_000, cohort=5_000, rounds=5))


def experiment_of(size: Size, *, processes: int, bundle: Path | None) -> Experiment:
    """Every phone is there, loses no link and has memory enough; all other physics are as always."""
    phone = {
        "devices": "all",
        "link_losses_per_hour": 0.0,
        "battery_ratio": 1.0,
        "metered": False,
        "has_charger": True,
        "free_memory_bytes": 8e9,
    }
    return Experiment.from_table(
        {
            "task": {"name": "synthetic", "options": options(size), "bundle": str(bundle or "")},
            "partition": {"kind": "natural"},
            "fleet": {"devices": size.devices, "availability": "always", "overrides": [phone]},
            "training": {"steps": STEPS, "batch_size": BATCH_SIZE, "learning_rate": 0.05, "personalised": False},
            # All that are asked are waited for.
            "rounds": {
                "count": size.rounds,
                "cohort": size.cohort,
                "over_selection": 1.0,
                "minimum_ratio": 1.0,
                "deadline_s": 864_000.0,
            },
            "engine": {"plan": "batched", "processes": processes},
        }
    )


def options(size: Size) -> dict[str, Any]:
    """The task's."""
    return {"kind": "numbers", "users": size.devices, "features": 13, "examples": EXAMPLES, "hidden": [64, 32]}


def prepare(sizes: list[Size], folder: Path) -> None:
    """Draw the populations that are kept in the cache, and export the model, all into ``folder``."""
    for size in sizes:
        load_task("synthetic", options(size))
    few = Size(devices=10, cohort=10, rounds=1)
    simulate(experiment_of(few, processes=1, bundle=None), folder / "first", force=True)


def measure(size: Size, *, processes: int, folder: Path) -> dict[str, Any]:
    """One run: its row.

    Raises:
        AssertionError: devices did not make all their steps, or learnt nothing.
    """
    experiment = experiment_of(size, processes=processes, bundle=folder / "first" / "bundle")
    peak, own = 0, 0

    def watch(stage: str, row: Mapping[str, Any]) -> None:  # noqa: ARG001 - an observer
        nonlocal peak, own
        if stage == "round":
            children = [child.pid for child in multiprocessing.active_children() if child.pid]
            used = [_used_bytes(pid) for pid in (os.getpid(), *children)]
            peak, own = max(peak, sum(whole for whole, _ in used)), max(own, sum(part for _, part in used))

    started_s = time.perf_counter()
    summary = simulate(experiment, folder / "run", force=True, observer=watch).summary
    whole_s = time.perf_counter() - started_s
    steps = size.cohort * size.rounds * STEPS
    if summary["device_steps"] != steps:
        raise AssertionError(f"{size}: {summary['device_steps']} device-steps, not {steps}")
    metrics = summary["metrics"]
    # What is no number is not below it either.
    if not metrics["last"]["test_loss"] < metrics["initial"]["test_loss"]:
        raise AssertionError(f"{size}: learnt nothing: {metrics}")
    return {
        **asdict(size),
        "processes": processes,
        "device_steps": steps,
        "wall_s": summary["wall_seconds"],
        "device_steps_per_s": steps / summary["wall_seconds"],
        "around_s": whole_s - summary["wall_seconds"],
        "peak_own_bytes": own,
        "peak_bytes": peak,
    }


def _used_bytes(pid: int) -> tuple[int, int]:
    """Of a process that runs: its share of all memory, and of that what is no file's."""
    sizes = re.findall(r"^(Pss|Pss_Anon|Pss_Shmem): +(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    found = {name: int(size) * 1024 for name, size in sizes}
    return found["Pss"], found["Pss_Anon"] + found["Pss_Shmem"]


def compared(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The last size against the first: the median of the throughputs, the greatest peak; and what is wanted."""
    speed = {
        devices: statistics.median(row["device_steps_per_s"] for row in rows if row["devices"] == devices)
        for devices in (rows[0]["devices"], rows[-1]["devices"])
    }
    last = [row for row in rows if row["devices"] == rows[-1]["devices"]]
    throughput = speed[rows[-1]["devices"]] / speed[rows[0]["devices"]]
    peak_bytes = max(row["peak_bytes"] for row in last)
    return {
        "throughput_ratio": throughput,
        "throughput_ratio_wanted": f"{WANTED_THROUGHPUT:g} or more",
        "throughput_met": throughput >= WANTED_THROUGHPUT,
        "peak_bytes": peak_bytes,
        "peak_own_bytes": max(row["peak_own_bytes"] for row in last),
        "peak_ratio": peak_bytes / WANTED_BYTES,
        "peak_ratio_wanted": "below 1",
        "peak_met": peak_bytes < WANTED_BYTES,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("pocketfleet", "torch", "numpy")},
        },
    }


def main() -> None:
    """Print a row a run as JSON, sizes taking turns, then the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=Size.of, nargs="+", default=list(SIZES), metavar="DEVICES/COHORT/ROUNDS")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare is not None:
        prepare(arguments.sizes, arguments.prepare)
        return
    if arguments.one is not None:
        print(json.dumps(measure(arguments.sizes[0], processes=arguments.processes, folder=arguments.one)))
        return
    with tempfile.TemporaryDirectory() as place:
        rows = []
        _call("--prepare", place, sizes=arguments.sizes, place=place)
        for _ in range(arguments.repeats):
            for size in arguments.sizes:
                told = _call("--one", place, "--processes", str(arguments.processes), sizes=[size], place=place)
                rows.append(json.loads(told))
                print(json.dumps(rows[-1]), flush=True)
    print(json.dumps(compared(rows)))


def _call(*flags: str, sizes: list[Size], place: str) -> str:
    """This program in a process of its own, whose cache is in ``place``; what it printed."""
    command = [sys.executable, __file__, *flags, "--sizes", *map(str, sizes)]
    environment = {**os.environ, "XDG_CACHE_HOME": place}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


if __name__ == "__main__":
    main()
