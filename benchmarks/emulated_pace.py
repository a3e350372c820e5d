"""Whether emulated devices take the time that the simulator says: at real speed, and as seen from outside.

Two phones train three rounds of the Boston task once in a simulation and once as processes, whose requests pass a proxy
that writes down when how many bytes came. Their steps take 50 ms, some hundred times the host's, and their links are
slow, so that the host's own milliseconds are few. Told are, by device, each stage's seconds over the simulator's, steps
a second over the phone's, and resident memory; and the rate of every transfer over the phone's link. It fails only
where the two did not make the same model.

Usage: python benchmarks/emulated_pace.py [--devices 2] [--rounds 3]
"""

import argparse
import json
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from metering_proxy import Meter, metering_proxy

from pocketfleet import Experiment, emulation, simulate

STEP_S = 0.05
DOWN_BITS_PER_S, UP_BITS_PER_S = 400_000.0, 200_000.0
# Wanted: every ratio within so much of 1.
WITHIN = 0.2
# What is looked at as a transfer: a report has 7 KB, the programs have more.
LEAST_BYTES, PAUSE_S = 5_000, 0.15
STAGES = ("download", "train", "upload")


def slow_phones(devices: int, rounds: int) -> Experiment:
    """Phones whose every stage takes a second or more."""
    phone = {
        "devices": "all",
        "step_s": STEP_S,
        "down_bits_per_s": DOWN_BITS_PER_S,
        "up_bits_per_s": UP_BITS_PER_S,
        "latency_s": 0.05,
        "link_losses_per_hour": 0.0,
        "battery_ratio": 1.0,
    }
    return Experiment.from_table(
        {
            "seed": 3,
            "task": {"name": "boston"},
            "fleet": {"devices": devices, "program": "onnx", "heat": False, "overrides": [phone]},
            "training": {"batch_size": 8, "learning_rate": 0.001},
            "rounds": {"count": rounds, "cohort": devices, "over_selection": 1.0, "deadline_s": 3600.0},
            "engine": {"runtime": "onnx"},
        }
    )


def rates(transfers: list[list[tuple[float, int]]]) -> list[float]:
    """Bits a second of each transfer of more than some answers' bytes: those that came without a pause."""
    found = []
    for pieces in transfers:
        runs: list[list[tuple[float, int]]] = [[]]
        for at_s, count in pieces:
            # Whoever asks for the status asks every 0.2 s.
            if runs[-1] and at_s - runs[-1][-1][0] > PAUSE_S:
                runs.append([])
            runs[-1].append((at_s, count))
        # The first piece came at the beginning of the time that the others took.
        moved = [(sum(count for _, count in run[1:]), run[-1][0] - run[0][0]) for run in runs if run]
        found += [8.0 * count / seconds for count, seconds in moved if count > LEAST_BYTES]
    return found


def emulated(experiment: Experiment, out: Path) -> tuple[dict[str, Any], Meter]:
    """The emulation's summary, and what passed between its service and its devices."""
    meters: list[Meter] = []
    real_url = emulation._url
    with ExitStack() as stack:

        def by_the_proxy(service: "subprocess.Popen[bytes]", state: Path) -> str:
            meters.append(stack.enter_context(metering_proxy(real_url(service, state))))
            return meters[0].url

        emulation._url = by_the_proxy
        try:
            found = emulation.emulate(experiment, emulation.EmulationPlan(out=out), tell=lambda _: None)
        finally:
            emulation._url = real_url
    return found, meters[0]


def main() -> None:
    """Simulate, emulate, and tell the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    experiment = slow_phones(arguments.devices, arguments.rounds)
    with tempfile.TemporaryDirectory() as place:
        run = simulate(experiment, Path(place) / "run")
        found, meter = emulated(experiment, Path(place) / "emulation")
        if found["model_sha256"] != run.summary["model_sha256"]:
            raise SystemExit("the emulation made another model than the simulation")
        events = run.events[run.events["kind"].isin(STAGES)]
        expected = events.groupby(["device", "kind"], observed=True)["seconds"].sum()
        rows = [
            {
                "device": row["device"],
                **{f"{kind}_ratio": row[f"{kind}_s"] / float(expected[row["device"], kind]) for kind in STAGES},
                "step_rate_ratio": row["steps"] / row["train_s"] * STEP_S,
                "late_steps": row["late_steps"],
                "peak_rss_bytes": row["peak_rss_bytes"],
            }
            for row in found["devices"]
        ]
    down = [rate / DOWN_BITS_PER_S for rate in rates(meter.down)]
    up = [rate / UP_BITS_PER_S for rate in rates(meter.up)]
    for row in rows:
        print(json.dumps(row))
    print(json.dumps({"down_rate_ratios": down, "up_rate_ratios": up}))
    ratios = {
        "seconds": [row[f"{kind}_ratio"] for row in rows for kind in STAGES],
        "step_rate": [row["step_rate_ratio"] for row in rows],
        "down_rate": down,
        "up_rate": up,
    }
    met = {name: bool(found) and all(abs(one - 1.0) <= WITHIN for one in found) for name, found in ratios.items()}
    print(json.dumps({"met": met}))


if __name__ == "__main__":
    main()
