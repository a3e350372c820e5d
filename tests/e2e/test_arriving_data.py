"""Data that arrives with use, from the experiment to the table of days: hashes, who may train, what is measured."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pocketfleet import Bundle, Experiment, Run, resume, simulate
from pocketfleet.device_sim.flash_day import FlashDay
from pocketfleet.device_sim.screen_use import ScreenUse
from pocketfleet.errors import InputError

DAY_S = 86_400.0
SETTINGS = (
    "engine.checkpoint_share=1.0",
    "seed=4",
    "data.arrival=use",
    "data.examples_per_hour=12.0",
    "data.retention_days=1.5",
    "eligibility.min_examples=6",
    "fleet.devices=40",
    "partition.examples_per_device=60",
    "rounds.cohort=4",
    "rounds.minimum_ratio=0.25",
    "rounds.count=1000",
    "rounds.interval_s=7200.0",
    f"rounds.horizon_s={3.5 * DAY_S}",
)


def experiment(bundle: Bundle, *settings: str) -> Experiment:
    return Experiment.load("boston-fleet", [*SETTINGS, f"task.bundle={bundle.path}", *settings])


def hashes(run: Run) -> tuple[str, str]:
    return run.summary["model_sha256"], run.summary["events_sha256"]


@pytest.fixture(scope="module")
def unbroken(boston_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return simulate(experiment(boston_bundle), tmp_path_factory.mktemp("arriving") / "run")


def use_s(device: pd.Series, at_s: pd.Series) -> np.ndarray:
    day = FlashDay(seed=4)
    return ScreenUse(day, devices=40).seconds(device.to_numpy(), at_s.to_numpy())


def test_each_update_tells_what_its_phone_held_when_it_started(unbroken: Run) -> None:
    updates = unbroken.updates
    assert len(updates) == unbroken.summary["reports_accepted"] - unbroken.summary["non_finite_updates"] > 20
    # 12 an hour of use is one for 300 s; of those that came over a day and a half ago, none is left.
    arrived = np.minimum(use_s(updates["device"], updates["start_s"]) // 300, 60)
    before_s = (updates["start_s"] - 1.5 * DAY_S).clip(lower=0.0)
    dropped = np.minimum(use_s(updates["device"], before_s) // 300, 60)
    assert updates["num_present"].tolist() == (arrived - dropped).tolist()
    assert updates["num_held_out"].tolist() == (arrived // 5 - dropped // 5).tolist()
    assert (dropped > 0).any()
    assert updates["num_present"].min() >= 6
    assert updates["num_present"].nunique() > 5
    trained = unbroken.events.query("kind == 'train' and reason == ''").set_index(["device", "round"])["steps"]
    expected = np.ceil((updates["num_present"] - updates["num_held_out"]) / 8)
    found = trained.loc[list(zip(updates["device"], updates["round"], strict=True))]
    assert found.tolist() == expected.tolist()


def test_fewer_examples_are_asked_for_and_more_phones_may_train(
    unbroken: Run, boston_bundle: Bundle, tmp_path: Path
) -> None:
    fewer = simulate(experiment(boston_bundle, "eligibility.min_examples=1"), tmp_path / "run")
    assert fewer.updates["num_present"].min() < 6
    assert fewer.updates["start_s"].min() < unbroken.updates["start_s"].min()
    assert fewer.summary["ineligible"]["no_examples"] < unbroken.summary["ineligible"]["no_examples"]


def test_nothing_is_dropped_without_a_retention(boston_bundle: Bundle, tmp_path: Path) -> None:
    run = simulate(experiment(boston_bundle, "data.retention_days=0.0"), tmp_path / "run")
    arrived = np.minimum(use_s(run.updates["device"], run.updates["start_s"]) // 300, 60)
    assert run.updates["num_present"].tolist() == arrived.tolist()


def test_the_clock_alone_and_two_processes_give_the_hashes_of_one(
    unbroken: Run, boston_bundle: Bundle, tmp_path: Path
) -> None:
    timed = simulate(experiment(boston_bundle, "engine.timing_only=true"), tmp_path / "timed")
    assert timed.summary["events_sha256"] == unbroken.summary["events_sha256"]
    assert timed.updates.empty
    assert list(timed.updates) == list(unbroken.updates)
    two = simulate(experiment(boston_bundle, "engine.processes=2"), tmp_path / "two")
    assert hashes(two) == hashes(unbroken)
    pd.testing.assert_frame_equal(two.updates, unbroken.updates)


KILLED = """
import os, signal, sys
from pocketfleet import Experiment, simulate
from pocketfleet.device_sim.run_directory import RunDirectory

inner = RunDirectory.write_checkpoint

def killing(self, number, checkpoint):
    if number == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    inner(self, number, checkpoint)

if __name__ == "__main__":
    RunDirectory.write_checkpoint = killing
    simulate(Experiment.load(sys.argv[1]), sys.argv[2])
"""


def test_a_killed_run_resumes_to_the_same_hashes_and_updates(
    unbroken: Run, boston_bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "experiment.toml").write_text(experiment(boston_bundle).to_toml())
    (tmp_path / "killed.py").write_text(KILLED)
    ended = subprocess.run(
        [sys.executable, "killed.py", "experiment.toml", "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        capture_output=True,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert len(unbroken.rounds) > 12
    resumed = resume(tmp_path / "run")
    assert hashes(resumed) == hashes(unbroken)
    pd.testing.assert_frame_equal(resumed.updates, unbroken.updates)


def test_what_a_phone_is_measured_on_it_never_trained_on(boston_bundle: Bundle, tmp_path: Path) -> None:
    from pocketfleet.assembly import Parts

    chosen = experiment(boston_bundle, "partition.examples_per_device=0", "fleet.devices=10", "rounds.cohort=2")
    data = Parts.of(chosen, None).data
    # Whatever came by then, and whatever was dropped; the 405 tracts are told apart by their features.
    for device in range(10):
        trained = {tuple(row.tolist()) for row in data.training(device).x}
        measured = {tuple(row.tolist()) for row in data.held_out(device).x}
        assert len(trained) + len(measured) in {40, 41}
        for first, last in ((0, 7), (3, 30), (11, 40)):
            present = range(first, last)
            assert {tuple(row.tolist()) for row in data.training(device, present).x} <= trained
            assert {tuple(row.tolist()) for row in data.held_out(device, present).x} <= measured
            assert len(data.training(device, present)) + len(data.held_out(device, present)) == last - first


TASK = """
import numpy as np
from pocketfleet.training.tasks.boston import BostonTask

class Scheduled(BostonTask):
    def arrivals(self, devices, *, at_s, use_s):
        # All at noon of the device's own day.
        return np.where(at_s >= 43_200.0 + 86_400.0 * (devices % 2), 1000, 0)

class Wrong(BostonTask):
    def arrivals(self, devices, *, at_s, use_s):
        return WRONG

def make_task():
    return Scheduled(leave_out_b=False, split_seed=0)

def make_wrong():
    return Wrong(leave_out_b=False, split_seed=0)
"""
OWN = ["data.arrival=task", "data.examples_per_hour=0.0", "data.retention_days=0.0", "fleet.availability=always"]


def own_task(folder: Path, monkeypatch: pytest.MonkeyPatch, *, name: str, wrong: str = "None") -> None:
    # A module of its own name for each test: Python keeps what it imported.
    (folder / f"{name}.py").write_text(TASK.replace("WRONG", wrong))
    monkeypatch.chdir(folder)


def test_a_task_says_when_its_examples_arrive(
    boston_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_task(tmp_path, monkeypatch, name="scheduled")
    run = simulate(experiment(boston_bundle, *OWN, "task.name=scheduled:make_task"), tmp_path / "run")
    first_s = run.updates.groupby(run.updates["device"] % 2)["start_s"].min()
    assert 43_200.0 <= first_s[0] < 43_200.0 + 7200.0
    assert first_s[1] >= 43_200.0 + DAY_S
    assert set(run.updates["num_present"]) == {60}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("use_s / 3600.0", r"must return whole numbers of shape \(1,\), one for each device, got float64"),
        ("np.zeros(7, dtype=np.int64)", r"must return whole numbers of shape \(1,\).*got int64 of shape \(7,\)"),
        ("devices - 1", r"must return counts of 0 or more, got -1"),
        ("devices / nothing", r"arrivals of task 'boston' failed: NameError: name 'nothing'"),
    ],
)
def test_a_schedule_that_is_wrong_is_told_before_anything_is_written(
    wrong: str, words: str, boston_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"scheduled_{abs(hash(wrong))}"
    own_task(tmp_path, monkeypatch, name=name, wrong=wrong)
    with pytest.raises(InputError, match=words):
        simulate(experiment(boston_bundle, *OWN, f"task.name={name}:make_wrong"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_task_without_a_schedule(boston_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'data.arrival "task" needs a task with a method arrivals, \'boston\' has'):
        simulate(experiment(boston_bundle, *OWN), tmp_path / "run")


def test_days_prints_writes_and_draws_the_table(unbroken: Run, boston_bundle: Bundle, pocketfleet) -> None:
    told = pocketfleet("days", unbroken.path, "--csv", "days.csv", "--plot", "days.png")
    assert told.code == 0, told
    assert "mse, global" in " ".join(told.out.split())
    assert Path("days.png").read_bytes().startswith(b"\x89PNG")
    table = pd.read_csv("days.csv")
    pd.testing.assert_frame_equal(table, unbroken.personalisation_by_day())
    assert table["updates"].sum() == unbroken.updates["metric_global"].notna().sum()
    printed = json.loads(pocketfleet("days", unbroken.path, "--json").out)
    assert [row["day"] for row in printed] == table["day"].tolist()
    assert unbroken.plot_days().name == "days.png"


def test_days_of_a_run_that_has_none(unbroken: Run, boston_bundle: Bundle, pocketfleet) -> None:
    for arguments, words in (
        ((unbroken.path, "--plot", "days.doc"), "--plot must name a file ending in .png"),
        ((unbroken.path, "--plot", "missing/days.png"), "cannot be written"),
        ((unbroken.path, "--csv", "missing/days.csv"), "name a file in a folder that is there"),
        (("nowhere",), "nowhere holds no run"),
    ):
        told = pocketfleet("days", *arguments)
        assert (told.code, words in told.err) == (2, True), told
    simulate(experiment(boston_bundle, "engine.timing_only=true", "rounds.count=1"), "timed")
    assert "was timing only" in pocketfleet("days", "timed").err
    # Two examples a phone: none is held out.
    none = simulate(
        experiment(boston_bundle, "partition.examples_per_device=2", "eligibility.min_examples=1", "rounds.count=2"),
        "none",
    )
    assert len(none.updates) > 0
    assert "no phone held five examples or more" in pocketfleet("days", "none").err
