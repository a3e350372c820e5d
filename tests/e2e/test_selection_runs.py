"""Windows, Oort, caps and a user's own selection, from the experiment to the tables, and on after a break."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pocketfleet import Experiment, Run, resume, simulate
from pocketfleet.errors import InputError
from pocketfleet.export.bundle import Bundle

SETTINGS = (
    "engine.checkpoint_share=1.0",
    "fleet.devices=60",
    "fleet.availability='flash-2020'",
    "partition.examples_per_device=20",
    "training.batch_size=8",
    "rounds.cohort=2",
    "rounds.count=8",
    "rounds.interval_s=1800.0",
    "rounds.selection_window_s=600.0",
)
OWN = """
import numpy as np

class First:
    needs_losses = False
    def __init__(self, seed, population, last=False):
        self.last, self.rounds = last, 0
    def choose(self, candidates, *, count, round_index):
        return candidates[-count:] if self.last else candidates[:count]
    def learn(self, feedback):
        self.rounds += 1
    def state(self):
        return {"rounds": np.array(self.rounds)}
    def restore(self, state):
        self.rounds = int(state["rounds"])
"""


def experiment(bundle: Bundle, *settings: str) -> Experiment:
    return Experiment.load("boston-fleet", [*SETTINGS, f"task.bundle='{bundle.path}'", *settings])


def hashes(run: Run) -> tuple[str, str]:
    return run.summary["model_sha256"], run.summary["events_sha256"]


@pytest.mark.parametrize(
    "settings",
    [
        ["rounds.selection=oort", "rounds.population_cap=12"],
        ["rounds.selection=uniform", "rounds.pace_s=900.0", "rounds.population_cap=5"],
    ],
)
def test_a_run_that_was_broken_off_goes_on_to_the_same_hashes(
    boston_bundle: Bundle, tmp_path: Path, settings: list[str]
) -> None:
    whole = simulate(experiment(boston_bundle, *settings), tmp_path / "whole")
    # What this says would hold of nothing: a choice was made, and somebody was refused.
    assert (whole.rounds["candidates"] > whole.rounds["assigned"]).any()
    assert whole.rounds["refused"].sum() > 0
    seen: list[int] = []

    def break_off(stage: str, row: Mapping[str, Any]) -> None:
        seen.extend([row["round"]] if stage == "round" else [])
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(experiment(boston_bundle, *settings), tmp_path / "broken", observer=break_off)
    assert hashes(resume(tmp_path / "broken")) == hashes(whole)
    took_part = (whole.devices["assigned"] > 0).sum()
    assert took_part <= int(settings[-1].rpartition("=")[2])


def test_a_window_gives_the_same_events_by_the_clock_alone(boston_bundle: Bundle, tmp_path: Path) -> None:
    runs = [
        simulate(experiment(boston_bundle, f"engine.timing_only={timing}"), tmp_path / timing)
        for timing in ("true", "false")
    ]
    assert len({run.summary["events_sha256"] for run in runs}) == 1
    assert (runs[0].rounds["held"] >= runs[0].rounds["candidates"]).all()
    assert (runs[0].rounds["candidates"] > 0).all()


def test_oort_changes_who_is_chosen(boston_bundle: Bundle, tmp_path: Path) -> None:
    runs = [
        simulate(experiment(boston_bundle, f"rounds.selection={name}"), tmp_path / name) for name in ("uniform", "oort")
    ]
    assert len({run.summary["events_sha256"] for run in runs}) == 2


def test_a_users_own_selection_chooses(boston_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_selection.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    settings = ["rounds.selection=my_selection:First", "fleet.availability='always'"]
    # Three phones are asked, of all that can: those with the least numbers, or the highest.
    first = simulate(experiment(boston_bundle, *settings), tmp_path / "first")
    last = simulate(experiment(boston_bundle, *settings, "rounds.selection_options.last=true"), tmp_path / "last")
    asked = [set(run.devices.loc[run.devices["assigned"] > 0, "device"]) for run in (first, last)]
    assert max(asked[0]) < 30 < min(asked[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["rounds.selection=oort", "engine.timing_only=true"], "engine.timing_only trains nothing"),
        (["rounds.selection=oort", "rounds.selection_window_s=0.0"], "set rounds.selection_window_s above 0"),
        (["rounds.population_cap=1"], r"population_cap must be 0 \(none\), or the cohort \(2\) or more, got 1"),
        (["rounds.policy=buffered", "rounds.interval_s=0.0"], "rounds.selection_window_s is for rounds.policy"),
    ],
)
def test_what_does_not_go_together_is_refused(
    boston_bundle: Bundle, tmp_path: Path, settings: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        simulate(experiment(boston_bundle, *settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()
