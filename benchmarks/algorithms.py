"""In how many rounds algorithms reach a goal, each at the best rate of one grid that is printed with the answers.

1. *skew*: 50 devices with one of ten classes each, 10 a round, 4 epochs of batch 10, softmax regression, to a test loss
   of 0.65, where 0.495 is the least there is. Karimireddy et al. 2020 (arXiv:1910.06378) and Acar et al. 2021
   (arXiv:2111.04263) promise fewer rounds than FedAvg takes.
2. *digits*: 100 devices with 32 digits each, dealt out evenly, 10 a round, LeNet-5, to a test accuracy of 0.95: FedAvg
   (20 epochs of batch 10, the most local work of McMahan et al. 2017, arXiv:1602.05629, table 2) against FedSGD.

Every round's ten reports are in: phones are always available, and no more are asked than are wanted.

Usage: python benchmarks/algorithms.py [--race skew] [--seeds 1,2,3] [--quick] [--json FILE]
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pocketfleet import Experiment, simulate
from pocketfleet.errors import TrainingDivergedError

RATES = (0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """Who runs where, and to which goal.

    ``limit`` is how many rounds anyone gets; ``quick`` the rate of each runner in the short form.
    """

    table: Mapping[str, Any]
    metric: str
    goal: float
    limit: int
    runners: Mapping[str, Sequence[str]]
    rates: Sequence[float]
    quick: Mapping[str, float]


_FLEET = {"availability": "always"}
_ROUNDS = {"cohort": 10, "over_selection": 1.0, "minimum_ratio": 1.0}
RACES = {
    "skew": Race(
        table={
            "task": {"name": "one_class_each:make_task"},
            "partition": {"kind": "natural"},
            "fleet": {"devices": 50, **_FLEET},
            "training": {"epochs": 4, "batch_size": 10, "learning_rate": 0.1, "personalised": False},
            "rounds": _ROUNDS,
            "engine": {"plan": "batched"},
        },
        metric="test_loss",
        goal=0.65,
        limit=100,
        runners={
            "fedavg": [],
            "scaffold": ["algorithm.name=scaffold"],
            "feddyn, alpha 0.01": ["algorithm.name=feddyn", "algorithm.alpha=0.01"],
            "feddyn, alpha 0.1": ["algorithm.name=feddyn", "algorithm.alpha=0.1"],
        },
        rates=RATES,
        quick={"fedavg": 1.0, "scaffold": 0.3, "feddyn, alpha 0.01": 0.3},
    ),
    "digits": Race(
        table={
            "task": {"name": "mnist"},
            "fleet": {"devices": 100, **_FLEET},
            "training": {"learning_rate": 0.1, "personalised": False},
            "rounds": _ROUNDS,
        },
        metric="test_accuracy",
        goal=0.95,
        limit=400,
        runners={
            "fedavg": ["training.epochs=20", "training.batch_size=10"],
            # A test of 1,000 digits takes longer than a round: its count is good to five.
            "fedsgd": ["algorithm.name=fedsgd", "rounds.evaluate_every=5"],
        },
        rates=RATES,
        quick={},
    ),
}


class Reached(Exception):  # noqa: N818 - no error: a run that has shown what it was for
    """Ends a run at its goal."""


def rounds_to_goal(race: Race, experiment: Experiment, out: Path) -> int | None:
    """How many models a run made until the first one that meets the goal; ``None``: none did."""
    found: list[int] = []

    def watch(stage: str, row: Mapping[str, Any]) -> None:
        if stage != "round":
            return
        found.append(0)
        value = row[race.metric]
        if value <= race.goal if race.metric.endswith("loss") else value >= race.goal:
            raise Reached

    try:
        simulate(experiment, out, observer=watch)
    except Reached:
        return len(found)
    except TrainingDivergedError:
        pass
    return None


def run(race: Race, folder: Path, *, seeds: Sequence[int], quick: bool) -> list[dict[str, Any]]:
    """One row a runner, rate and seed."""
    rows: list[dict[str, Any]] = []
    # The programs of an algorithm are the same for every rate, seed and strength.
    programs: dict[str, Path] = {}
    for name, settings in race.runners.items():
        algorithm = name.partition(",")[0]
        rates = ([race.quick[name]] if name in race.quick else []) if quick else race.rates
        for rate in rates:
            for seed in seeds:
                out = folder / f"{name}-{rate}-{seed}"
                given = [f"task.bundle={programs[algorithm]}"] if algorithm in programs else []
                changed = [
                    *(*settings, f"training.learning_rate={rate}", f"seed={seed}", f"rounds.count={race.limit}"),
                    *given,
                ]
                experiment = Experiment.from_table(race.table).with_settings(*changed)
                rounds = rounds_to_goal(race, experiment, out)
                programs.setdefault(algorithm, out / "bundle")
                rows.append({"runner": name, "rate": rate, "seed": seed, "rounds": rounds})
                print(f"{name}, rate {rate}, seed {seed}: {rounds or f'not in {race.limit}'}", flush=True)
    return rows


def best(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean rounds over seeds at each runner's best rate, of those at which every seed reached the goal."""
    table = pd.DataFrame(rows)
    missed = table["rounds"].isna().groupby([table["runner"], table["rate"]], sort=False).any()
    means = table.groupby(["runner", "rate"], sort=False)["rounds"].mean()[~missed]
    return {str(name): float(value) for name, value in means.groupby(level="runner", sort=False).min().items()}


def main() -> None:
    """Print what each race took, and who was first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--race", choices=list(RACES), help="this one alone")
    parser.add_argument("--seeds", default="1", help="means over these")
    parser.add_argument("--quick", action="store_true", help="skew alone, each at a rate known to be good")
    parser.add_argument("--json", type=Path, help="write the best of each runner here")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    found: dict[str, dict[str, float]] = {}
    for name, race in RACES.items():
        if arguments.race not in {None, name} or (arguments.quick and not race.quick):
            continue
        print(f"{name}: rates {list(race.rates)}, seeds {seeds}, goal {race.metric} {race.goal}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            found[name] = best(run(race, Path(folder), seeds=seeds, quick=arguments.quick))
        for runner, rounds in found[name].items():
            print(f"{name}: {runner} needs {rounds:g} rounds at its best rate", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))
    if "skew" in found:
        _check_skew(found["skew"])
    if "digits" in found:
        ratio = found["digits"]["fedsgd"] / found["digits"]["fedavg"]
        print(f"digits: fedsgd takes {ratio:.1f} times as many rounds as fedavg")
        assert ratio >= 10.0, found["digits"]


def _check_skew(rounds: Mapping[str, float]) -> None:
    feddyn = min(value for name, value in rounds.items() if name.startswith("feddyn"))
    assert rounds["scaffold"] < rounds["fedavg"], rounds
    assert feddyn < rounds["fedavg"], rounds


if __name__ == "__main__":
    main()
