"""What privacy costs: 100,000 made-up phones learn ten classes; test accuracy by epsilon and cohort, means over seeds.

Every phone holds 20 examples, skewed in labels, and is always there. A phone is in one model at most, which costs no
accuracy where there are far more phones than reports, and makes epsilon that of a single round's noise. Updates are
clipped to 0.3, about the median of their lengths here. Epsilon is at delta 1e-6, a tenth of one over the phones;
inf: updates are clipped and nothing is added. The noise on a mean falls with its reports: so the cohort is varied.

It fails unless every run costs the epsilon that it was asked for, and with the larger cohort the model at epsilon 8 is
within 0.03 of the one without noise.

Usage: python benchmarks/cost_of_privacy.py [--seeds 1 2] [--cohorts 20 100] [--rounds 60] [--results FOLDER]
    [--plot FILE]
"""

import argparse
import itertools
import json
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from pocketfleet import Experiment, Run, simulate

DEVICES, DELTA, MAX_NORM = 100_000, 1e-6, 0.3
EPSILONS = (1.0, 2.0, 4.0, 8.0, math.inf)
# Demanded of the largest cohort.
WITHIN, AT_EPSILON = 0.03, 8.0
# Okabe and Ito's palette, told apart by colour-blind readers (jfly.uni-koeln.de/color).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


def experiment(epsilon: float, cohort: int, *, seed: int, rounds: int) -> Experiment:
    """One cell of the table, of one seed."""
    return Experiment.from_table(
        {
            "seed": seed,
            "task": {"name": "synthetic", "options": {"users": DEVICES, "examples": 20, "label_alpha": 0.3}},
            "partition": {"kind": "natural"},
            "fleet": {"devices": DEVICES, "availability": "always"},
            "training": {"batch_size": 10, "learning_rate": 0.1, "personalised": False},
            "rounds": {"count": rounds, "cohort": cohort, "over_selection": 1.0, "evaluate_every": 2},
            "privacy": {
                "mechanism": "central",
                "max_norm": MAX_NORM,
                "target_epsilon": epsilon,
                "delta": DELTA,
                "max_participations": 1,
            },
            # Named, so that all runs are computed alike; one checkpoint, at the end.
            "engine": {"plan": "batched", "processes": 1, "checkpoint_share": 0.0},
        }
    )


def runs(
    epsilons: Sequence[float], cohorts: Sequence[int], *, seeds: Sequence[int], rounds: int, folder: Path
) -> Iterator[dict[str, float]]:
    """A row a run; the first run's programs serve all."""
    bundle = ""
    for cohort, epsilon, seed in itertools.product(cohorts, epsilons, seeds):
        out = folder / f"{cohort}-{epsilon}-{seed}"
        changed = experiment(epsilon, cohort, seed=seed, rounds=rounds).with_settings(f"task.bundle='{bundle}'")
        run = simulate(changed, out)
        bundle = bundle or str(out / "bundle")
        row = row_of(run, epsilon, cohort, seed=seed, rounds=rounds)
        print(
            f"cohort {cohort:4} epsilon {epsilon:4} seed {seed}: noise {row['noise_multiplier']:.3f}, "
            f"accuracy {row['accuracy']:.3f}",
            flush=True,
        )
        yield row


def row_of(run: Run, epsilon: float, cohort: int, *, seed: int, rounds: int) -> dict[str, float]:
    """What a run says, its work checked.

    Raises:
        AssertionError: it did other work than was asked for.
    """
    found = run.summary["privacy"]
    cost = math.inf if found["epsilon"] is None else found["epsilon"]
    assert cost == epsilon or abs(cost - epsilon) < 1e-3, (cost, epsilon)
    assert run.summary["rounds"] == rounds
    assert run.summary["reports_accepted"] == rounds * cohort
    assert int(run.devices["accepted"].max()) == 1
    return {
        "cohort": cohort,
        "epsilon": epsilon,
        "seed": seed,
        "noise_multiplier": found["noise_multiplier"],
        "accuracy": run.summary["metrics"]["mean_of_last_five"]["test_accuracy"],
    }


def table_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, ``table[cohort][epsilon]``."""
    return rows.pivot_table(index="epsilon", columns="cohort", values="accuracy", sort=False)


def failure(table: pd.DataFrame) -> str:
    """What is demanded and not met; empty: nothing."""
    largest = table[table.columns.max()]
    lost = float(largest[math.inf] - largest[AT_EPSILON])
    return "" if lost <= WITHIN else f"epsilon {AT_EPSILON} costs {lost:.3f}, more than {WITHIN}"


def plot(table: pd.DataFrame, file: Path) -> None:
    """Accuracy against epsilon, a line a cohort; dashed: without noise."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    finite = [epsilon for epsilon in table.index if not math.isinf(epsilon)]
    for colour, cohort in zip(COLOURS, table.columns, strict=False):
        axes.plot(finite, table[cohort][finite], marker="o", color=colour, label=f"{cohort} phones a round")
        axes.axhline(table[cohort][math.inf], color=colour, linestyle="--", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(finite, [f"{epsilon:g}" for epsilon in finite])
    axes.set_xlabel(f"epsilon at delta {DELTA:g}")
    axes.set_ylabel("test accuracy")
    axes.set_title("Dashed: clipped, without noise")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)


def main() -> None:
    """Print the table, write it and its plot; fail if it is not as demanded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--cohorts", nargs="+", type=int, default=[20, 100])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--results", type=Path, help="folder of cost_of_privacy.json")
    parser.add_argument("--plot", type=Path, help="a PNG")
    given = parser.parse_args()
    began_s = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        found = runs(EPSILONS, given.cohorts, seeds=given.seeds, rounds=given.rounds, folder=Path(folder))
        rows = pd.DataFrame(found)
    core_s = time.process_time() - began_s
    table = table_of(rows)
    print(table.round(3).to_string(), f"\n{core_s:.0f} seconds of a core")
    if given.results is not None:
        written = {
            "command": f"cost_of_privacy.py --seeds {' '.join(map(str, given.seeds))} "
            f"--cohorts {' '.join(map(str, given.cohorts))} --rounds {given.rounds}",
            "devices": DEVICES,
            "delta": DELTA,
            "max_norm": MAX_NORM,
            "core_seconds": round(core_s),
            "runs": rows.replace(math.inf, None).to_dict("records"),
        }
        (given.results / "cost_of_privacy.json").write_text(json.dumps(written, indent=1) + "\n")
    if given.plot is not None:
        plot(table, given.plot)
    if failed := failure(table):
        raise SystemExit(failed)


if __name__ == "__main__":
    main()
