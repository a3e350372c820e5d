"""A sweep's processes: what is told of one that dies, and of an export that fails."""

from pathlib import Path

import pytest

from pocketfleet.device_sim.sweep import parse_variations
from pocketfleet.sweep_plan import PlannedRun, plan_runs
from pocketfleet.sweep_processes import run_all
from pocketfleet.sweep_rows import SweepRows

EXPERIMENT = """
[task]
name = "swept_tasks:{factory}"
[fleet]
devices = 2
[training]
learning_rate = 0.001
[rounds]
cohort = 2
count = 1
[engine]
timing_only = true
"""

# Both are in order as far as a plan can see; one ends any process but the first, one has no operator on a phone.
TASKS = """
import multiprocessing
import os

import torch
from torch import nn

from pocketfleet.training.tasks.boston import BostonTask


class Spectral(nn.Module):
    def forward(self, x):
        return x * torch.linalg.eigvalsh(torch.outer(x[0], x[0])).sum()


class Unexportable(BostonTask):
    def make_model(self):
        return nn.Sequential(super().make_model(), Spectral())


def make_dying():
    if multiprocessing.parent_process() is not None:
        os._exit(7)
    return BostonTask(leave_out_b=False, split_seed=0)


def make_unexportable():
    return Unexportable(leave_out_b=False, split_seed=0)
"""


def swept(factory: str) -> tuple[list[tuple[str, str, str]], tuple[PlannedRun, ...]]:
    """What was told of two runs that share a bundle, and the runs."""
    Path("swept_tasks.py").write_text(TASKS)
    Path("swept.toml").write_text(EXPERIMENT.format(factory=factory))
    runs = plan_runs("swept.toml", parse_variations(["rounds.deadline_s=60.0,90.0"]), [], Path("sweep"))
    heard: list[tuple[str, str, str]] = []
    run_all(runs, processes=2, told=lambda run, stage, text: heard.append((run.name, stage, text)))
    return heard, runs


def test_a_process_that_dies_is_told_and_the_next_one_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    heard, runs = swept("make_dying")
    assert [(name, stage) for name, stage, _ in heard] == [("deadline_s=60.0", "failed"), ("deadline_s=90.0", "failed")]
    assert {"exit code 7" in text for _, _, text in heard} == {True}
    assert [row["status"] for row in SweepRows(runs).table()] == ["missing", "missing"]


def test_an_export_that_fails_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    heard, _ = swept("make_unexportable")
    assert [(name, stage) for name, stage, _ in heard] == [
        ("deadline_s=60.0", "export"),
        ("deadline_s=60.0", "failed"),
        ("deadline_s=90.0", "failed"),
    ]
    assert heard[1][2] == heard[2][2]
    assert "Spectral" in heard[1][2] or "eigvalsh" in heard[1][2]
