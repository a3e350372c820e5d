"""The same experiment gives the same hashes: twice, with more processes, and continued after a kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pocketfleet import Bundle, Experiment, Run, simulate
from pocketfleet.training.draws import draw_key, uniform

SETTINGS = (
    "fleet.devices=40",
    "rounds.count=5",
    "rounds.cohort=8",
    "rounds.deadline_s=20",
    "rounds.interval_s=7200",
    "training.epochs=1",
    "partition.kind=iid",
    "partition.examples_per_device=20",
    "training.batch_size=8",
    "engine.checkpoint_share=1.0",
    # A probe might choose another way for one run than for the next.
    "engine.plan=each",
)


def experiment(bundle: Bundle, *settings: str) -> Experiment:
    return Experiment.load("boston-fleet", [*SETTINGS, f"task.bundle={bundle.path}", *settings])


def hashes(run: Run) -> tuple[str, str]:
    return run.summary["model_sha256"], run.summary["events_sha256"]


@pytest.fixture(scope="module")
def unbroken(boston_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return simulate(experiment(boston_bundle), tmp_path_factory.mktemp("unbroken") / "run")


def test_the_same_experiment_twice(boston_bundle: Bundle, unbroken: Run, tmp_path: Path) -> None:
    assert hashes(simulate(experiment(boston_bundle), tmp_path / "run")) == hashes(unbroken)


def test_two_processes_give_the_hashes_of_one(boston_bundle: Bundle, unbroken: Run, tmp_path: Path) -> None:
    run = simulate(experiment(boston_bundle, "engine.processes=2"), tmp_path / "run")
    assert hashes(run) == hashes(unbroken)
    assert run.summary["device_steps"] == unbroken.summary["device_steps"] > 0


def test_lenet_with_two_processes_gives_the_hashes_of_one(mnist_bundle: Bundle, tmp_path: Path) -> None:
    settings = ["fleet.devices=12", "rounds.cohort=4", "rounds.count=2", "training.epochs=1"]
    settings += ["partition.examples_per_device=40", f"task.bundle={mnist_bundle.path}", "engine.plan=each"]
    runs = [
        simulate(
            Experiment.load("mnist-fleet", [*settings, f"engine.processes={processes}"]), tmp_path / str(processes)
        )
        for processes in (1, 2)
    ]
    assert hashes(runs[0]) == hashes(runs[1])


def test_another_seed_changes_both_hashes(boston_bundle: Bundle, unbroken: Run, tmp_path: Path) -> None:
    other = hashes(simulate(experiment(boston_bundle, "seed=2"), tmp_path / "run"))
    assert other[0] != hashes(unbroken)[0]
    assert other[1] != hashes(unbroken)[1]


# Each wraps one function so that its third call is the last thing that the process does.
KILLS = {
    "inside a checkpoint write": ("pocketfleet.device_sim.run_directory", "sync_path", 7),
    "between events and checkpoint": ("pocketfleet.device_sim.run_directory", "RunDirectory.write_checkpoint", 3),
    "inside a cohort": ("pocketfleet.device_sim.client", "Client.train", 21),
    "inside the events' part": ("pandas", "DataFrame.to_parquet", 5),
    "while joining the tables": ("pocketfleet.device_sim.run_directory", "RunDirectory.finish", 1),
}
KILLED = """
import importlib, os, signal, sys
from pocketfleet import Experiment, simulate

def killing(module, path, calls):
    owner = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    inner, left = getattr(owner, name), [calls]
    def wrapper(*arguments, **named):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(*arguments, **named)
    setattr(owner, name, wrapper)

if __name__ == "__main__":
    toml, out, module, path, calls = sys.argv[1:]
    killing(module, path, int(calls))
    simulate(Experiment.load(toml), out)
"""


@pytest.mark.parametrize("where", list(KILLS))
def test_a_killed_run_resumes_to_the_hashes_of_an_unbroken_one(
    where: str, boston_bundle: Bundle, unbroken: Run, tmp_path: Path
) -> None:
    from pocketfleet import resume

    (tmp_path / "experiment.toml").write_text(experiment(boston_bundle).to_toml())
    (tmp_path / "killed.py").write_text(KILLED)
    module, path, calls = KILLS[where]
    out = tmp_path / "run"
    ended = subprocess.run(
        [sys.executable, "killed.py", "experiment.toml", str(out), module, path, str(calls)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        capture_output=True,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert not (out / "summary.json").exists()
    assert hashes(resume(out)) == hashes(unbroken)
    assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize("trial", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 8))])
def test_kills_at_any_moment_lose_nothing(trial: int, boston_bundle: Bundle, tmp_path: Path) -> None:
    """Killed and resumed again and again, with one process or two and checkpoints apart; then as if never killed."""
    from pocketfleet import resume

    chosen = experiment(
        boston_bundle, f"engine.processes={1 + trial % 2}", "engine.checkpoint_share=0.5", "rounds.count=30"
    )
    whole = simulate(chosen, tmp_path / "whole")
    (tmp_path / "experiment.toml").write_text(chosen.to_toml())
    (tmp_path / "program.py").write_text("from pocketfleet.cli import main\nif __name__ == '__main__':\n    main()\n")
    out, kills = tmp_path / "run", 0
    for share in uniform(draw_key(trial, "kill"), 3):
        what = ["--resume", str(out)] if (out / "experiment.toml").exists() else ["experiment.toml", "--out", str(out)]
        running = subprocess.Popen(
            [sys.executable, "program.py", "simulate", *what, "--quiet"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )
        # Any moment after the first checkpoint; to load the program takes longer than all the rounds.
        give_up_s = time.monotonic() + 300.0
        while running.poll() is None and not list((out / "checkpoints").glob("[0-9]*")):
            assert time.monotonic() < give_up_s
        try:
            running.wait(timeout=share * 1.5)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            kills += 1
        running.wait()
    assert kills > 0
    assert hashes(resume(out)) == hashes(whole)


def test_killing_a_simulation_leaves_no_worker_behind(boston_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_text(experiment(boston_bundle, "engine.processes=2").to_toml())
    (tmp_path / "killed.py").write_text(KILLED)
    ended = subprocess.run(
        # The third checkpoint: workers are busy by then.
        [
            sys.executable,
            "killed.py",
            "experiment.toml",
            str(tmp_path / "run"),
            "pocketfleet.device_sim.run_directory",
            "RunDirectory.write_checkpoint",
            "3",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        # The workers hold the other end of this pipe: the call returns when the last of them is gone.
        capture_output=True,
        timeout=120,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()


def test_ctrl_c_says_how_to_go_on(boston_bundle: Bundle, unbroken: Run, tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_text(experiment(boston_bundle, "engine.processes=2").to_toml())
    program = "from pocketfleet.cli import main\nif __name__ == '__main__':\n    main()\n"
    (tmp_path / "program.py").write_text(program)
    running = subprocess.Popen(
        [sys.executable, "program.py", "simulate", "experiment.toml", "--out", "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Tests that run in the background ignore interrupts, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert running.stderr is not None
    # Interrupted as a terminal does it, the whole group of processes, once a round is done.
    lines = []
    for line in running.stderr:
        lines.append(line)
        if "version" in line:
            os.killpg(running.pid, signal.SIGINT)
            break
    rest = running.communicate(timeout=120)[1]
    assert running.returncode == 130, [*lines, rest]
    assert "continue with: pocketfleet simulate --resume run" in rest
    assert "Traceback" not in rest, rest
    from pocketfleet import resume

    assert hashes(resume(tmp_path / "run")) == hashes(unbroken)
