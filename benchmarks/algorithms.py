"""In how many rounds algorithms reach a goal, each at the best rate of one grid that is printed with the answers.

1. *skew*: 50 devices with one of ten classes each, 10 a round, 4 epochs of batch 10, softmax regression, to a test loss
   of 0.65, where 0.495 is the least there is. Karimireddy et al. 2020 (arXiv:1910.06378) and Acar et al. 2021
   (arXiv:2111.04263) promise fewer rounds than FedAvg takes.
2. *digits*: 20 devices with 160 digits each, dealt out evenly, 10 a round, LeNet-5, to a test accuracy of 0.95: FedAvg
   (20 epochs of batch 10, the most local work of McMahan et al. 2017, arXiv:1602.05629, table 2) against FedSGD. There
   100 devices hold 600 digits each; with a hundred devices the packaged digits would leave 32 to each, and little local
   work to do.

Every round's ten reports are in: phones are always available, and no more are asked than are wanted. Who is not at the
goal within the limit of rounds, or diverges, is told as needing more than the limit, and counts as no faster than it.

Usage: python benchmarks/algorithms.py [--race skew] [--seeds 1,2,3] [--quick] [--json FILE]
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
            "fleet": {"devices": 20, **_FLEET},
            "training": {"learning_rate": 0.1, "personalised": False},
            "rounds": _ROUNDS,
        },
        metric="test_accuracy",
        goal=0.95,
        limit=300,
        runners={
            "fedavg": ["training.epochs=20", "training.batch_size=10"],
            # A test of 1,000 digits takes longer than a round: its count is good to five.
            "fedsgd": ["algorithm.name=fedsgd", "rounds.evaluate_every=5"],
        },
        rates=RATES,
        quick={},
    ),
}


class Best(NamedTuple):
    """Mean rounds at a runner's best rate; where that was never at the goal, fewer than it needs."""

    rounds: float
    reached: bool

    def __str__(self) -> str:
        return f"{'' if self.reached else 'more than '}{self.rounds:g}"

    def beats(self, other: "Best") -> bool:
        """Whether it certainly needed fewer rounds than the other."""
        return self.reached and self.rounds < other.rounds


class Reached(Exception):  # noqa: N818 - no error: a run that has shown what it was for
    """Ends a run at its goal."""


def rounds_to_goal(race: Race, experiment: Experiment, out: Path) -> int | None:
    """How many models a run made until the first measured one that meets the goal; ``None``: none did.

    Raises:
        TrainingDivergedError: the rate is too high.
    """
    models: list[int] = []

    def watch(stage: str, row: Mapping[str, Any]) -> None:
        # Rows of rounds whose model was not measured hold no metric at all.
        if stage != "round" or not any(name.startswith("test_") for name in row):
            return
        value = row[race.metric]
        if value <= race.goal if race.metric.endswith("loss") else value >= race.goal:
            models.append(row["model_version"])
            raise Reached

    try:
        simulate(experiment, out, observer=watch)
    except Reached:
        return models[0]
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
                why = f"not in {race.limit}"
                try:
                    rounds = rounds_to_goal(race, experiment, out)
                except TrainingDivergedError as exc:
                    # An answer about this rate; the others go on. What to do about it is in its second sentence.
                    rounds, why = None, str(exc).partition(". ")[0]
                programs.setdefault(algorithm, out / "bundle")
                rows.append({"runner": name, "rate": rate, "seed": seed, "rounds": rounds})
                print(f"{name}, rate {rate}, seed {seed}: {rounds or why}", flush=True)
    return rows


def best(rows: Sequence[Mapping[str, Any]], *, limit: int) -> dict[str, Best]:
    """Each runner at its best rate, of those at which every seed reached the goal if there is one.

    A run that did not reach it counts with the ``limit``, which it needs more than.
    """
    table = pd.DataFrame(rows)
    table = table.assign(reached=table["rounds"].notna(), rounds=table["rounds"].astype(float).fillna(limit))
    found = {}
    for runner, own in table.groupby("runner", sort=False):
        rates = own.groupby("rate").agg(rounds=("rounds", "mean"), reached=("reached", "all"))
        reached = bool(rates["reached"].any())
        counted = rates[rates["reached"]] if reached else rates
        found[str(runner)] = Best(float(counted["rounds"].min()), reached)
    return found


def main() -> None:
    """Print what each race took, and who was first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--race", choices=list(RACES), help="this one alone")
    parser.add_argument("--seeds", default="1", help="means over these")
    parser.add_argument("--quick", action="store_true", help="skew alone, each at a rate known to be good")
    parser.add_argument("--json", type=Path, help="write the best of each runner here")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    found: dict[str, dict[str, Best]] = {}
    for name, race in RACES.items():
        if arguments.race not in {None, name} or (arguments.quick and not race.quick):
            continue
        print(f"{name}: rates {list(race.rates)}, seeds {seeds}, goal {race.metric} {race.goal}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            found[name] = best(run(race, Path(folder), seeds=seeds, quick=arguments.quick), limit=race.limit)
        for runner, rounds in found[name].items():
            print(f"{name}: {runner} needs {rounds} rounds at its best rate", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({name: told(rounds) for name, rounds in found.items()}, indent=2))
    if "skew" in found:
        check_skew(found["skew"])
    if "digits" in found:
        check_digits(found["digits"])


def told(rounds: Mapping[str, Best]) -> dict[str, float | str]:
    """Rounds by runner, in words of one that was not at the goal."""
    return {name: value.rounds if value.reached else str(value) for name, value in rounds.items()}


def check_skew(rounds: Mapping[str, Best]) -> None:
    """Both of those that are made for skew need fewer rounds than averaging."""
    assert rounds["scaffold"].beats(rounds["fedavg"]), told(rounds)
    feddyns = [value for name, value in rounds.items() if name.startswith("feddyn")]
    assert any(value.beats(rounds["fedavg"]) for value in feddyns), told(rounds)


def check_digits(rounds: Mapping[str, Best]) -> None:
    """Averaging needs a tenth of single gradients' rounds or fewer."""
    fedavg, fedsgd = rounds["fedavg"], rounds["fedsgd"]
    assert fedavg.reached, told(rounds)
    ratio = Best(fedsgd.rounds / fedavg.rounds, fedsgd.reached)
    print(f"digits: fedsgd takes {ratio} times as many rounds as fedavg")
    assert ratio.rounds >= 10.0, told(rounds)


if __name__ == "__main__":
    main()
