"""``pocketfleet sweep`` and ``pocketfleet compare`` as a user calls them: grids, failures, kills, resumption."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pocketfleet import Bundle, Experiment, Run, simulate
from pocketfleet.export.manifest import file_sha256

ROOT = Path(__file__).parents[2]


def settings(bundle: Bundle, *more: str) -> list[str]:
    given = (f"task.bundle='{bundle.path}'", "fleet.devices=60", "fleet.availability=always", "rounds.cohort=5", *more)
    return [part for setting in given for part in ("--set", setting)]


def test_a_grid_is_run_and_tabled(pocketfleet, boston_bundle: Bundle) -> None:
    arguments = [
        *("sweep", "boston-fleet", "--timing-only", "--json", "--out", "grid"),
        *("--vary", "rounds.over_selection=1.0,1.6", "--vary", "rounds.count=2,3"),
        *settings(boston_bundle),
    ]
    called = pocketfleet(*arguments)
    assert (called.code, called.err) == (0, "")
    rows = json.loads(called.out)
    assert [(row["rounds.over_selection"], row["rounds.count"], row["rounds"]) for row in rows] == [
        (1.0, 2, 2),
        (1.0, 3, 3),
        (1.6, 2, 2),
        (1.6, 3, 3),
    ]
    # Selected are ceil(5 * over_selection), 5 or 8, in each round.
    assert [row["device_rounds"] for row in rows] == [10, 15, 16, 24]
    assert json.loads(Path("grid/sweep.json").read_text())["rows"] == rows
    assert list(pd.read_csv("grid/sweep.csv")["run"]) == [row["run"] for row in rows]
    # The very run that simulate makes.
    last = Run(Path("grid") / rows[3]["run"])
    alone = simulate(Experiment.load(last.path / "experiment.toml"), "alone")
    assert alone.summary["events_sha256"] == last.summary["events_sha256"]
    # Again, it is all there already; of another experiment it is not.
    written = last.path.joinpath("summary.json").stat().st_mtime_ns
    assert json.loads(pocketfleet(*arguments, "--resume").out) == rows
    assert last.path.joinpath("summary.json").stat().st_mtime_ns == written
    called = pocketfleet(*arguments, "--resume", "--set", "seed=2")
    assert called.code == 2
    assert "over_selection=1.0,count=2 was run with another seed" in called.err
    assert "holds a sweep already" in pocketfleet(*arguments).err
    _compared(pocketfleet, rows)


def _compared(pocketfleet, rows: list[dict[str, object]]) -> None:
    paths = [f"grid/{row['run']}" for row in rows]
    called = pocketfleet("compare", *paths, "--json", "--csv", "compared.csv")
    assert called.code == 0
    compared = json.loads(called.out)
    assert list(compared[0])[:4] == ["run", "rounds.count", "rounds.over_selection", "rounds"]
    assert [row["device_rounds_difference_percent"] for row in compared] == pytest.approx([0.0, 50.0, 60.0, 140.0])
    same = [name for name in rows[0] if name not in {"run", "status", "problem"}]
    assert [[row[name] for name in same] for row in compared] == [[row[name] for name in same] for row in rows]
    assert len(pd.read_csv("compared.csv")) == 4
    printed = pocketfleet("compare", *paths[:2]).out
    assert "15 (+50.0 %)" in printed
    assert "over_selection" not in printed.replace("\n", "").replace("grid/over_selection", "")


def test_a_run_that_fails_ends_no_other(pocketfleet, boston_bundle: Bundle) -> None:
    arguments = ["sweep", "boston-two-phones", "--vary", "training.learning_rate=1e30,0.001", "--out", "rates"]
    arguments += ["--set", f"task.bundle={boston_bundle.path}", "--set", "rounds.count=2"]
    called = pocketfleet(*arguments)
    assert called.code == 1
    failed, done = json.loads(Path("rates/sweep.json").read_text())["rows"]
    assert (failed["status"], failed["rounds"]) == ("failed", None)
    assert "training diverged" in failed["problem"]
    assert "pocketfleet: learning_rate=1e30: training diverged" in called.err
    assert (done["status"], done["problem"], done["rounds"]) == ("done", "", 2)
    evaluated = Run(Path("rates") / done["run"]).rounds["test_mse"]
    assert done["metric_last"] == pytest.approx(evaluated.iloc[-1])
    assert done["metric_mean_of_last_five"] == pytest.approx(evaluated.mean())
    assert "What was learnt" in called.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vary", "fleet.network=home-wifi,foo"], "with fleet.network=foo: fleet.network must be one of"),
        (["--vary", "rounds.cohort=5,600"], "with rounds.cohort=600: boston-fleet: rounds.cohort must be 1..500"),
        (["--vary", "rounds.cohort=5,5"], "rounds.cohort=5 is the same experiment"),
        (["--vary", "rounds.over_selection=1,1.0"], "is the same experiment as rounds.over_selection=1"),
        (["--vary", "seed=1,2", "--set", "seed=3"], "seed is varied and set"),
        (["--vary", "rounds.chort=5,6"], "did you mean 'cohort'"),
        (["--vary", "engine.timing_only=true,false", "--timing-only"], "engine.timing_only is varied and set"),
        (["--vary", "seed=1,2", "--resume"], "holds no sweep"),
        ([], "varies at least one key"),
    ],
)
def test_what_cannot_run_is_told_before_anything_runs(pocketfleet, arguments: list[str], message: str) -> None:
    called = pocketfleet("sweep", "boston-fleet", "--out", "none", *arguments)
    assert called.code == 2
    assert message in called.err
    assert len(called.err.splitlines()) == 1
    assert not Path("none").exists()


def test_compare_takes_finished_runs(pocketfleet, tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "experiment.toml").write_text("seed = 1")
    for arguments, message in {
        ("begun",): "two runs or more",
        ("begun", "nowhere"): "the run in begun has not ended: continue it with",
        ("nowhere", "begun"): "nowhere holds no run",
        ("begun", "./begun"): "named twice",
        ("begun", "nowhere", "--csv", "no/file.csv"): "no/file.csv cannot be written",
    }.items():
        called = pocketfleet("compare", *arguments)
        assert called.code == 2
        assert message in called.err


def test_what_the_engine_chose_is_no_difference(pocketfleet, boston_bundle: Bundle) -> None:
    given = settings(boston_bundle, "rounds.cohort=10", "rounds.count=2")
    for name, *more in (
        ("each", "--set", "engine.plan=each"),
        ("mapped", "--set", "engine.plan=batched", "--set", "seed=2"),
        ("clock", "--timing-only"),
    ):
        called = pocketfleet("simulate", "boston-fleet", "--quiet", "--out", name, *given, *more)
        assert called.code == 0, called.err
    called = pocketfleet("compare", "each", "mapped", "clock")
    assert called.code == 0, called.err
    assert "What was learnt" in called.out
    assert "engine.plan" not in called.out
    rows = json.loads(pocketfleet("compare", "each", "mapped", "clock", "--json").out)
    assert list(rows[0])[:4] == ["run", "seed", "engine.timing_only", "rounds"]


def program(folder: Path) -> list[str]:
    """The program in a process of its own, as pip writes it."""
    file = folder / "program.py"
    file.write_text("from pocketfleet.cli import main\nif __name__ == '__main__':\n    main()\n")
    return [sys.executable, str(file)]


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    end_s = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end_s
        time.sleep(0.02)  # noqa: TID251 - waits for other processes


def writes(folder: Path) -> bool:
    """Whether a run's process still makes checkpoints."""
    before = sorted(folder.glob("checkpoints/*"))
    time.sleep(1.0)  # noqa: TID251 - waits for other processes
    return sorted(folder.glob("checkpoints/*")) != before


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.long)])
def test_a_sweep_that_was_ended_goes_on(boston_bundle: Bundle, tmp_path: Path, how: signal.Signals) -> None:
    # The first run is soon over; the second is in its midst when all is ended; the third has not begun.
    arguments = ["sweep", "boston-fleet", "--timing-only", "--vary", "rounds.count=2,200,3", "--processes", "1"]
    arguments += ["--out", "sweep", *settings(boston_bundle, "rounds.interval_s=60.0", "engine.checkpoint_share=1.0")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    call = {"cwd": tmp_path, "env": environment, "text": True, "stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    # Tests that run in the background ignore interrupts, and so would what they start.
    call["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    midst = tmp_path / "sweep" / "count=200"
    with subprocess.Popen([*program(tmp_path), *arguments], start_new_session=True, **call) as process:
        wait_until(lambda: any(folder.name.isdigit() for folder in midst.glob("checkpoints/*")), process)
        # Ctrl-C reaches every process of a terminal, a kill the one that is meant.
        os.killpg(process.pid, how) if how == signal.SIGINT else process.kill()
        _, errors = process.communicate()
    assert not writes(midst)
    rows = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["rows"]
    assert [row["status"] for row in rows] == ["done", "missing", "missing"]
    assert not (midst / "summary.json").exists()
    command = [*arguments, "--resume"]
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "Traceback" not in errors
        command = shlex.split(errors.rpartition("continue with: pocketfleet ")[2])
        assert command == [*arguments, "--resume"]
    kept = (tmp_path / "sweep" / "count=2" / "summary.json").stat().st_mtime_ns
    begun = (midst / "experiment.toml").read_bytes()
    done = subprocess.run([*program(tmp_path), *command], check=False, **call)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sweep" / "count=2" / "summary.json").stat().st_mtime_ns == kept
    assert "count=2:" not in done.stderr
    rows = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["rows"]
    assert [(row["status"], row["rounds"]) for row in rows] == [("done", 2), ("done", 200), ("done", 3)]
    # As if nothing had happened.
    assert (midst / "experiment.toml").read_bytes() == begun
    alone = simulate(Experiment.load(midst / "experiment.toml"), tmp_path / "alone")
    assert alone.summary["events_sha256"] == Run(midst).summary["events_sha256"]


def test_a_trained_private_sweep_goes_on_and_tells_what_it_gives_away(pocketfleet, boston_bundle: Bundle) -> None:
    # The run writes down the noise that it found, and how it was computed.
    private = ["mechanism=central", "max_norm=0.5", "delta=1e-5", "max_participations=1"]
    given = settings(boston_bundle, *(f"privacy.{one}" for one in private), "rounds.count=2")
    arguments = ["sweep", "boston-fleet", *given, "--vary", "privacy.target_epsilon=1.0,8.0", "--out", "s", "--json"]
    called = pocketfleet(*arguments)
    assert called.code == 0, called.err
    rows = json.loads(called.out)
    epsilons = [row["epsilon"] for row in rows]
    assert epsilons == [Run(Path("s") / row["run"]).summary["privacy"]["epsilon"] for row in rows]
    assert [0.9 < epsilon / target <= 1.0 for epsilon, target in zip(epsilons, (1.0, 8.0), strict=True)] == [True] * 2
    again = pocketfleet(*arguments, "--resume")
    assert (again.code, json.loads(again.out)) == (0, rows), again.err
    # What was not left to the run must be the same.
    way = Experiment.load(Path("s") / rows[0]["run"] / "experiment.toml").engine.plan
    other = {"each": "batched"}.get(way, "each")
    for key, value in (("privacy.delta", "1e-6"), ("engine.plan", other)):
        again = pocketfleet(*arguments, "--resume", "--set", f"{key}={value}")
        assert again.code == 2
        assert re.search(rf"was run with another .*{key}[,:]", again.err)
    printed = pocketfleet("compare", *(f"s/{row['run']}" for row in rows)).out
    assert "What it gives away" in printed


@pytest.mark.parametrize("batches", [(8,), pytest.param((4, 8), marks=pytest.mark.long)])
def test_one_export_for_all_that_can_share_it(pocketfleet, batches: tuple[int, ...]) -> None:
    arguments = ["sweep", "boston-two-phones", "--timing-only", "--set", "rounds.count=2", "--out", "shared"]
    sizes = ",".join(map(str, batches))
    called = pocketfleet(
        *arguments, "--vary", f"training.batch_size={sizes}", "--vary", "training.learning_rate=0.001,0.002"
    )
    assert called.code == 0, called.err
    rows = json.loads(Path("shared/sweep.json").read_text())["rows"]
    exporting = [line for line in called.err.splitlines() if "exporting" in line]
    assert len(exporting) == len(batches)
    paths = [Path("shared") / row["run"] for row in rows]
    programs = [file_sha256(path / "bundle" / "train_step.onnx") for path in paths]
    assert programs[::2] == programs[1::2]
    assert [Bundle.load(path / "bundle").max_batch for path in paths[::2]] == list(batches)
    # Each run stands on its own: it names no other run's bundle.
    assert {Experiment.load(path / "experiment.toml").task.bundle for path in paths} == {""}
