"""Whether emulated devices take the time that the simulator says, at real speed.

Two phones train three rounds of the Boston task once in a simulation and once as processes. Their steps take 50 ms,
some hundred times the host's, and their links are slow, so that the host's own milliseconds are few. Told are, by
device, each stage's seconds over the simulator's, steps a second over the phone's, and resident memory. It fails only
where the two did not make the same model.

Usage: python benchmarks/emulated_pace.py [--devices 2] [--rounds 3]
"""

import argparse
import json
import tempfile
from pathlib import Path

from pocketfleet import Experiment, simulate
from pocketfleet.emulation import EmulationPlan, emulate

STEP_S = 0.05
DOWN_BITS_PER_S, UP_BITS_PER_S = 400_000.0, 200_000.0
# Wanted: every ratio within so much of 1.
WITHIN = 0.2
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


def main() -> None:
    """Simulate, emulate, and tell the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    experiment = slow_phones(arguments.devices, arguments.rounds)
    with tempfile.TemporaryDirectory() as place:
        run = simulate(experiment, Path(place) / "run")
        plan = EmulationPlan(out=Path(place) / "emulation")
        found = emulate(experiment, plan, tell=lambda _: None)
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
    for row in rows:
        print(json.dumps(row))
    ratios = {
        "seconds": [row[f"{kind}_ratio"] for row in rows for kind in STAGES],
        "step_rate": [row["step_rate_ratio"] for row in rows],
    }
    met = {name: bool(found) and all(abs(one - 1.0) <= WITHIN for one in found) for name, found in ratios.items()}
    print(json.dumps({"met": met}))


if __name__ == "__main__":
    main()
