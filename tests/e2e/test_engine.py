"""How the host computes: whatever way, the same run; what was chosen stands in the run's experiment."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from pocketfleet import Bundle, Experiment, Run, simulate
from pocketfleet.assembly import Parts
from pocketfleet.engine import planned
from pocketfleet.errors import InputError

SETTINGS = (
    "fleet.devices=24",
    "fleet.availability=always",
    "rounds.cohort=16",
    "rounds.count=3",
    "training.epochs=2",
    "partition.kind=quantity",
    "partition.alpha=2.0",
)


def boston(bundle: Bundle, out: Path, *settings: str) -> Run:
    return simulate(Experiment.load("boston-fleet", [*SETTINGS, f"task.bundle={bundle.path}", *settings]), out)


def engine(run: Run) -> dict[str, object]:
    return tomllib.loads((run.path / "experiment.toml").read_text())["engine"]


def test_mapped_devices_make_the_run_of_devices_one_by_one(boston_bundle: Bundle, tmp_path: Path) -> None:
    each = boston(boston_bundle, tmp_path / "each", "engine.plan=each")
    mapped = boston(boston_bundle, tmp_path / "mapped", "engine.plan=batched", "engine.chunk=7")
    assert mapped.summary["events_sha256"] == each.summary["events_sha256"]
    assert mapped.summary["device_steps"] == each.summary["device_steps"] > 100
    for name, value in each.weights().trainable.items():
        torch.testing.assert_close(mapped.weights().trainable[name], value, rtol=1e-3, atol=1e-4)
    ours, theirs = mapped.updates, each.updates
    assert ours["device"].tolist() == theirs["device"].tolist()
    for column in ("train_loss", "metric_global", "metric_personalised"):
        assert ours[column].to_numpy() == pytest.approx(theirs[column].to_numpy(), rel=2e-3, nan_ok=True)
    device = int(theirs["device"].iloc[-1])
    for name, value in each.personalised(device).trainable.items():
        torch.testing.assert_close(mapped.personalised(device).trainable[name], value, rtol=1e-3, atol=1e-4)


def test_mapped_runs_have_the_same_hashes_with_one_process_and_two(boston_bundle: Bundle, tmp_path: Path) -> None:
    settings = ("engine.plan=batched", "engine.chunk=5")
    alone = boston(boston_bundle, tmp_path / "1", *settings)
    shared = boston(boston_bundle, tmp_path / "2", *settings, "engine.processes=2")
    assert shared.summary["model_sha256"] == alone.summary["model_sha256"]
    assert shared.summary["events_sha256"] == alone.summary["events_sha256"]


def test_auto_writes_down_what_it_chose_and_why(boston_bundle: Bundle, tmp_path: Path) -> None:
    chosen = engine(boston(boston_bundle, tmp_path / "auto"))
    assert chosen["plan"] in {"each", "batched"}
    assert "us a device-step" in str(chosen["plan_reason"])
    again = Experiment.from_toml((tmp_path / "auto" / "experiment.toml").read_text())
    assert simulate(again, tmp_path / "again").summary["model_sha256"] == Run(tmp_path / "auto").summary["model_sha256"]


def test_without_a_compiler_one_warning_and_the_same_run(boston_bundle: Bundle, tmp_path: Path) -> None:
    """In a process of its own: torch looks for a compiler once. Chunks are not full, and there are two processes."""
    (tmp_path / "program.py").write_text("from pocketfleet.cli import main\nif __name__ == '__main__':\n    main()\n")
    settings = [*SETTINGS, f"task.bundle='{boston_bundle.path}'", "engine.plan=batched"]
    plain = boston(boston_bundle, tmp_path / "plain", "engine.plan=batched")
    called = subprocess.run(
        [sys.executable, "program.py", "simulate", "boston-fleet", "--quiet", "--out", "run"]
        + [word for one in (*settings, "engine.compile=true", "engine.processes=2") for word in ("--set", one)],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "CXX": "/nowhere/c++",
            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
        },
        check=False,
        capture_output=True,
        text=True,
    )
    assert called.returncode == 0, called.stderr
    assert called.stderr.count("engine.compile is left out, torch's compiler does not work here") == 1
    assert "Warning" not in called.stderr
    run = Run(tmp_path / "run")
    assert run.summary["model_sha256"] == plain.summary["model_sha256"]
    assert engine(run)["compile"] is False
    assert "compiler does not work here" in str(engine(run)["plan_reason"])


def test_processes_are_started_where_the_training_is_worth_it(
    boston_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = engine(boston(boston_bundle, tmp_path / "short"))
    assert short["processes"] == 1
    # So long a training that nobody waits for it: planned, not run.
    experiment = Experiment.load(
        "boston-fleet", [*SETTINGS, f"task.bundle={boston_bundle.path}", "rounds.count=10_000_000"]
    )
    monkeypatch.setattr("pocketfleet.engine.cores", lambda: 3)
    long = planned(experiment, Parts.of(experiment, boston_bundle.path), boston_bundle.path).engine
    assert long.processes == 3
    assert "3 processes, since one would train for some" in long.plan_reason


def test_phones_that_keep_no_models_make_the_same_global_one(boston_bundle: Bundle, tmp_path: Path) -> None:
    keeping = boston(boston_bundle, tmp_path / "keeping", "engine.plan=batched")
    forgetting = boston(boston_bundle, tmp_path / "forgetting", "engine.plan=batched", "training.personalised=false")
    assert forgetting.summary["model_sha256"] == keeping.summary["model_sha256"]
    assert forgetting.updates["metric_global"].isna().all()
    assert not list((forgetting.path / "device_store").glob("*.safetensors"))
    with pytest.raises(InputError, match=r"kept no models of their own: set training\.personalised to true"):
        forgetting.personalised(int(forgetting.updates["device"].iloc[0]))


@pytest.mark.parametrize("way", ["each_channels_last", "each_onnx", "batched_unfolded"])
def test_digits_by_every_way(mnist_bundle: Bundle, tmp_path: Path, way: str) -> None:
    settings = ["fleet.devices=8", "rounds.cohort=4", "rounds.count=1", "training.epochs=1", "rounds.deadline_s=6000"]
    settings += ["partition.examples_per_device=20", f"task.bundle={mnist_bundle.path}", "engine.processes=1"]
    plain, other = (
        simulate(Experiment.load("mnist-fleet", [*settings, f"engine.plan={plan}"]), tmp_path / plan)
        for plan in ("each", way)
    )
    assert other.summary["events_sha256"] == plain.summary["events_sha256"]
    start = Bundle.load(mnist_bundle.path).weights().trainable
    for name, value in plain.weights().trainable.items():
        moved = float((value - start[name]).norm())
        assert float((other.weights().trainable[name] - value).norm()) < 1e-3 * moved + 1e-6


def test_what_cannot_be_is_refused_before_anything_is_written(boston_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"engine\.plan"):
        boston(boston_bundle, tmp_path / "a", "engine.plan=fastest")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r'engine\.device is "cuda", and torch sees no such device here'):
            boston(boston_bundle, tmp_path / "b", "engine.device=cuda")
    with pytest.raises(InputError, match=r'engine\.plan "batched" is of engine\.runtime "torch"'):
        boston(boston_bundle, tmp_path / "c", "engine.plan=batched", "engine.runtime=onnx")
    for way in ("engine.plan=each", "engine.runtime=onnx"):
        with pytest.raises(InputError, match=r"engine\.compile is of mapped devices: leave engine\.plan"):
            boston(boston_bundle, tmp_path / "e", "engine.compile=true", way)
    with pytest.raises(InputError, match=r"engine\.device \"cuda\" needs mapped devices"):
        boston(boston_bundle, tmp_path / "d", "engine.plan=each", "engine.device=cuda")
    assert not list(tmp_path.iterdir())


def test_a_profile_tells_where_the_time_went(boston_bundle: Bundle, tmp_path: Path) -> None:
    from pocketfleet.device_sim.stage_clock import StageClock

    clock = StageClock()
    experiment = Experiment.load("boston-fleet", [*SETTINGS, f"task.bundle={boston_bundle.path}", "engine.plan=each"])
    run = simulate(experiment, tmp_path / "run", profile=clock)
    unwatched = boston(boston_bundle, tmp_path / "unwatched", "engine.plan=each")
    assert run.summary["model_sha256"] == unwatched.summary["model_sha256"]
    # Device by device, the training of two hundred steps outweighs a few milliseconds of everything else.
    assert clock.seconds["training"] > clock.seconds["physics"] > 0.0
    assert all(clock.seconds[stage] > 0.0 for stage in ("evaluation", "server", "coordinator", "events", "disk"))
    assert clock.seconds["codec"] == 0.0
