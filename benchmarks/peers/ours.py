"""Runs a workload in pocketfleet: the whole simulation, phones' physics, events, tables and checkpoints included.

Usage: python ours.py FOLDER RESULT.json ROUNDS ENGINE
"""

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from result import Result, versions
from workload import Workload

from pocketfleet import Experiment, Run, simulate
from pocketfleet.device_sim.run_directory import EXPERIMENT
from pocketfleet.device_sim.stage_clock import StageClock

__all__ = ["ENGINES", "experiment_of", "measure", "stage_shares", "trained"]

# Peers neither keep the devices' own models nor measure them.
_ALIKE = ("training.personalised=false",)
# How pocketfleet computes, by the name of its row.
ENGINES: dict[str, tuple[str, ...]] = {
    "1 process": ("engine.processes=1",),
    "2 processes": ("engine.processes=2",),
    "compiled, 2 processes": ("engine.processes=2", "engine.plan=batched", "engine.compile=true"),
}


def experiment_of(folder: Path, *, rounds: int, cohort: int, settings: Sequence[str] = ()) -> Experiment:
    """The experiment of a workload; every phone is there and finishes, all other physics are as always."""
    workload = Workload.load(folder)
    table = {
        "seed": workload.seed,
        "task": {"name": "population_task:make_task", "options": {"folder": str(folder.resolve())}},
        "partition": {"kind": "natural"},
        "fleet": {
            "devices": workload.devices,
            "availability": "always",
            # Peers know no lost link and no small phone: none here keeps a phone from finishing.
            "overrides": [
                {
                    "devices": "all",
                    "link_losses_per_hour": 0.0,
                    "battery_ratio": 1.0,
                    "metered": False,
                    "has_charger": True,
                    "free_memory_bytes": 8e9,
                }
            ],
        },
        "training": {
            "steps": workload.steps,
            "batch_size": workload.batch_size,
            "learning_rate": workload.learning_rate,
        },
        # All that are asked are waited for.
        "rounds": {
            "count": rounds,
            "cohort": cohort,
            "over_selection": 1.0,
            "minimum_ratio": 1.0,
            "deadline_s": 864_000.0,
        },
    }
    return Experiment.from_table(table).with_settings(*settings)


def trained(run: Run, *, steps: int) -> npt.NDArray[np.int64]:
    """The devices of every round of a run, ``[rounds, cohort]``, rising.

    Raises:
        AssertionError: a device did not make all its steps, or a round had not its whole cohort.
    """
    events = run.events
    accepted = events[(events["kind"] == "report") & (events["reason"] == "accepted")][["round", "device"]]
    work = accepted.merge(events[events["kind"] == "train"][["round", "device", "steps"]], on=["round", "device"])
    sizes = work.groupby("round").size()
    if not (work["steps"] == steps).all() or sizes.nunique() != 1:
        raise AssertionError(f"not every device made its {steps} steps: {work['steps'].value_counts().to_dict()}")
    devices = work.sort_values(["round", "device"])["device"].to_numpy()
    return devices.astype(np.int64).reshape(len(sizes), -1)


def measure(folder: Path, *, rounds: int, engine: str) -> Result:
    """Warm up with one round, then time all of them, then see by a further run where the time goes.

    Raises:
        AssertionError: other devices trained than the workload lays down, or the further run learnt something else.
    """
    workload = Workload.load(folder)
    # The programs that the population's maker exported: an export is no part of what is timed.
    settings = (*_ALIKE, *ENGINES[engine], f"task.bundle='{folder.resolve() / 'bundle'}'")
    experiment = experiment_of(folder, rounds=rounds, cohort=workload.cohorts.shape[1], settings=settings)
    with tempfile.TemporaryDirectory() as place:
        simulate(experiment.with_settings("rounds.count=1"), Path(place) / "warm-up")
        closed_s: list[float] = []
        started = time.perf_counter()
        run = simulate(
            experiment,
            Path(place) / "run",
            observer=lambda stage, _: closed_s.append(time.perf_counter()) if stage == "round" else None,
        )
        whole_s = time.perf_counter() - started
        if not np.array_equal(trained(run, steps=workload.steps), workload.cohorts[:rounds]):
            raise AssertionError("other devices trained than the workload lays down")
        summary = run.summary
        # Every process compiles for itself when it first trains: in the first round, which then is warm-up.
        warm = 1 if experiment.engine.compile and rounds > 1 else 0
        seconds = closed_s[-1] - closed_s[0] if warm else summary["wall_seconds"]
        stages = stage_shares(run, Path(place) / "staged", warm=warm)
        return Result(
            system=f"pocketfleet, {engine}",
            workload=workload.name,
            seconds=seconds,
            device_steps=summary["device_steps"] * (rounds - warm) // rounds,
            losses=[summary["metrics"]["initial"]["test_loss"], *run.rounds["test_loss"].tolist()],
            versions=versions("pocketfleet", "torch", "numpy"),
            around_s=whole_s - seconds,
            warm_rounds=warm,
            stages=stages,
        )


def stage_shares(run: Run, out: Path, *, warm: int) -> dict[str, float]:
    """Shares of the wall time by stage, as ``simulate --profile`` counts them, of the same run once more.

    Once more, so that no clock is in what is timed; by the way of computing that the run took, not by a new probe.

    Args:
        run: what is repeated.
        out: where to.
        warm: rounds at the beginning that are not counted.

    Raises:
        AssertionError: the repetition learnt something else.
    """
    clock = StageClock()
    before, closed = dict.fromkeys(clock.seconds, 0.0), 0

    def observe(stage: str, row: Mapping[str, Any]) -> None:  # noqa: ARG001 - an observer
        nonlocal closed
        closed += stage == "round"
        if stage == "round" and closed == warm:
            # A block entered and left: what is under way is counted up to now.
            with clock.running():
                before.update(clock.seconds)

    experiment = Experiment.from_toml((run.path / EXPERIMENT).read_text(), name=str(run.path / EXPERIMENT))
    again = simulate(experiment, out, observer=observe, profile=clock)
    if again.summary["model_sha256"] != run.summary["model_sha256"]:
        raise AssertionError("the run that is looked into learnt something else than the one that is timed")
    spent = {stage: seconds - before[stage] for stage, seconds in clock.seconds.items()}
    return {stage: seconds / sum(spent.values()) for stage, seconds in spent.items()}


def main() -> None:
    """Measure, and write the result."""
    folder, out, rounds, engine = sys.argv[1:]
    measure(Path(folder), rounds=int(rounds), engine=engine).save(Path(out))


if __name__ == "__main__":
    main()
