"""A day of ever larger populations by the clock alone: wall time, peak memory, and the coordinator against its oracle.

Each size runs ``mnist-million`` in a fresh process, its cohort in proportion, with one bundle that is exported first.
Of the 10,000 phones' day the page that ``pocketfleet report`` writes is timed, in a fresh process too. The
coordinator's answers are then timed against those of the per-object oracle of its tests, on the same rounds of 1,300
check-ins and reports. The last line says which of the limits below hold. Missed seconds and memory are told, not
raised: the machine may be shared. It fails where the million did less than its work, or where seconds or memory grew
faster than the devices.

Usage: python benchmarks/population_day.py [--devices 1000 10000 100000 1000000] [--bundle DIR] [--plot FILE]
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pocketfleet import Experiment, Run, simulate
from pocketfleet.device_sim.page import page
from pocketfleet.training.coordinator import Coordinator
from pocketfleet.training.round import RoundPlan

SIZES = (1_000, 10_000, 100_000, 1_000_000)
MILLION, PAGED = 1_000_000, 10_000
# The million's day: assignments at least, seconds and bytes at most; the seconds of 10,000 phones' day and of its page;
# how many times as long the objects take as the columns, at least.
LEAST_DEVICE_ROUNDS, MOST_MILLION_S, MOST_MILLION_BYTES = 300_000, 60.0, 1.5e9
MOST_PAGED_S, MOST_PAGE_S, LEAST_RATIO = 6.0, 20.0, 20.0
ROUNDS, ASKED, COHORT = 300, 1300, 1000
# The shortest of so many is told, of both: the machine is shared.
REPEATS = 3


def one_day(devices: int, bundle: Path | None, out: Path) -> dict[str, Any]:
    """Simulate; seconds are of the simulation alone, memory is the whole process's peak."""
    settings = [f"fleet.devices={devices}", f"rounds.cohort={max(1, devices // 1000)}"]
    if bundle is not None:
        settings.append(f"task.bundle='{bundle}'")
    summary = simulate(Experiment.load("mnist-million", settings), out, force=True).summary
    return {
        "devices": devices,
        "device_rounds": summary["device_rounds"],
        "rounds": summary["rounds"],
        "wall_s": summary["wall_seconds"],
        "peak_memory_bytes": peak_bytes(),
    }


def peak_bytes() -> int:
    """Of this process: not ``ru_maxrss``, which is at least what the process had that started it."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


def one_page(run: Path) -> dict[str, Any]:
    """Write a run's page; seconds are from opening the run to the whole text."""
    started = time.perf_counter()
    opened = Run(run)
    text = page(opened)
    return {
        "page_of_devices": opened.summary["devices"],
        "page_s": time.perf_counter() - started,
        "page_bytes": len(text.encode()),
    }


def met(
    rows: Sequence[Mapping[str, Any]], pages: Sequence[Mapping[str, Any]], coordinator_ratio: float
) -> dict[str, bool]:
    """Which limits hold, of those that the sizes that ran have anything to say to.

    Args:
        rows: of ``one_day``, a size each.
        pages: of ``one_page``.
        coordinator_ratio: of ``coordinators``.
    """
    found = {}
    for row in rows:
        if row["devices"] == MILLION:
            found["million_work"] = row["device_rounds"] >= LEAST_DEVICE_ROUNDS
            found["million_seconds"] = row["wall_s"] < MOST_MILLION_S
            found["million_memory"] = row["peak_memory_bytes"] < MOST_MILLION_BYTES
        if row["devices"] == PAGED:
            found["10000_seconds"] = row["wall_s"] < MOST_PAGED_S
    if pages:
        found["page_seconds"] = all(one["page_s"] < MOST_PAGE_S for one in pages)
    found["coordinator"] = coordinator_ratio >= LEAST_RATIO
    by_size = sorted(rows, key=lambda row: row["devices"])
    for key, name in (("wall_s", "growth_seconds"), ("peak_memory_bytes", "growth_memory")):
        found[name] = all(
            more[key] / less[key] <= more["devices"] / less["devices"] for less, more in itertools.pairwise(by_size)
        )
    return found


def check_work(holds: Mapping[str, bool]) -> None:
    """Raise ``AssertionError`` where what does not depend on the machine's other users fails: work and growth."""
    failed = [name for name in ("million_work", "growth_seconds", "growth_memory") if not holds.get(name, True)]
    if failed:
        raise AssertionError(f"not met: {', '.join(failed)}")


def coordinators() -> dict[str, float]:
    """Microseconds an assignment takes, of the columns and of the objects, on the same rounds."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "training"))
    from plain_coordinator import PlainCoordinator

    plan = RoundPlan(cohort=COHORT, over_selection=ASKED / COHORT, deadline_s=120.0)
    device, examples = np.arange(ASKED), np.full(ASKED, 40)
    starts = [200.0 * index + np.linspace(0.0, 50.0, ASKED) for index in range(ROUNDS)]

    fast_s = slow_s = np.inf
    for _ in range(REPEATS):
        started = time.perf_counter()
        fast = Coordinator(plan, population=ASKED)
        for start_s in starts:
            ids = fast.check_in_many(device, start_s).assignment_id
            fast.report_many(ids, examples, start_s + 60.0)
        fast_s = min(fast_s, time.perf_counter() - started)

        started = time.perf_counter()
        slow = PlainCoordinator(plan)
        for start_s in starts:
            rows = [slow.check_in(number, time_s)[0] for number, time_s in enumerate(start_s.tolist())]
            for assignment_id, time_s in zip(rows, (start_s + 60.0).tolist(), strict=True):
                slow.report(assignment_id, 40, time_s)
        slow_s = min(slow_s, time.perf_counter() - started)

    closed = fast.advance(1e9)
    if [closing.time_s for closing in closed] != [closing["time_s"] for closing in slow.closings]:
        raise AssertionError("the coordinator and its oracle closed at different times")
    if len(closed) != ROUNDS or not all(closing.succeeded for closing in closed):
        raise AssertionError("not every round closed with its cohort")
    scale = 1e6 / (ROUNDS * ASKED)
    return {"columns_us": fast_s * scale, "objects_us": slow_s * scale, "ratio": slow_s / fast_s}


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """Wall time and peak memory against the number of devices."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    devices = [row["devices"] for row in rows]
    for axes, key, label, scale in zip(
        figure.subplots(1, 2),
        ("wall_s", "peak_memory_bytes"),
        ("seconds for a day", "peak memory, GB"),
        (1.0, 1e9),
        strict=True,
    ):
        axes.plot(devices, [row[key] / scale for row in rows], marker="o", color="#0072b2")
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("devices")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)


def main() -> None:
    """Print a row a size as JSON, the page's behind that of 10,000 phones, then the coordinators, then what is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--bundle", type=Path, help="an exported mnist bundle; without, one is exported first")
    parser.add_argument("--plot", type=Path, help="draw wall time and memory into this PNG")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--page", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.page is not None:
        print(json.dumps(one_page(arguments.page)))
        return
    if arguments.one is not None:
        print(json.dumps(one_day(arguments.devices[0], arguments.bundle, arguments.one)))
        return
    with tempfile.TemporaryDirectory() as folder:
        bundle = arguments.bundle
        if bundle is None:
            one_day(100, None, Path(folder) / "first")
            bundle = Path(folder) / "first" / "bundle"
        run, rows, pages = Path(folder) / "run", [], []
        for devices in arguments.devices:
            rows.append(_fresh("--devices", str(devices), "--bundle", str(bundle), "--one", str(run)))
            if devices == PAGED:
                pages.append(_fresh("--page", str(run)))
    answers = coordinators()
    print(json.dumps(answers))
    holds = met(rows, pages, answers["ratio"])
    print(json.dumps({"met": holds}), flush=True)
    if arguments.plot is not None:
        plot(rows, arguments.plot)
    check_work(holds)


def _fresh(*arguments: str) -> dict[str, Any]:
    """The row that this file prints in a process of its own; printed here too."""
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    row: dict[str, Any] = json.loads(done.stdout)
    print(json.dumps(row), flush=True)
    return row


if __name__ == "__main__":
    main()
