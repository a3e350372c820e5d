"""The service and devices as processes, end to end."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pocketfleet import Bundle, Experiment, simulate
from pocketfleet.device_sim.phone_clock import PhoneClock
from pocketfleet.emulation import EmulationPlan, emulate
from pocketfleet.errors import InputError, PocketfleetError, TrainingDivergedError
from pocketfleet.training.server.administration import model_rows

# A full battery: nobody waits for a charger.
TABLE: dict[str, Any] = {
    "seed": 3,
    "task": {"name": "boston"},
    "fleet": {"program": "onnx", "overrides": [{"devices": "all", "battery_ratio": 1.0}]},
    "training": {"batch_size": 8, "learning_rate": 0.001},
    "engine": {"runtime": "onnx"},
}


def experiment(bundle: Bundle, devices: int, count: int, **rounds: object) -> Experiment:
    table = {name: dict(value) if isinstance(value, dict) else value for name, value in TABLE.items()}
    table["task"]["bundle"] = str(bundle.path)
    table["fleet"]["devices"] = devices
    table["rounds"] = {"count": count, "cohort": devices, "over_selection": 1.0, "deadline_s": 3600.0, **rounds}
    return Experiment.from_table(table)


def silent(line: str) -> None:
    """Nobody hears."""


def test_an_emulation_gives_the_simulations_model(tmp_path: Path, boston_bundle: Bundle) -> None:
    told: list[str] = []
    run = simulate(experiment(boston_bundle, 3, 2), tmp_path / "run")
    found = emulate(experiment(boston_bundle, 3, 2), EmulationPlan(out=tmp_path / "out", speed=10.0), tell=told.append)
    assert found["model_sha256"] == run.summary["model_sha256"]
    assert (found["versions"], found["rounds"], found["reports_accepted"], found["crashes"]) == (2, 2, 6, 0)
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == found
    for device, row in zip(run.devices.to_dict("records"), found["devices"], strict=True):
        assert (row["name"], row["phone"], row["accepted"]) == (device["name"], device["phone"], 2)
        assert row["steps"] == device["steps"]
        # Torch and the runtime are in it.
        assert 1e8 < row["peak_rss_bytes"] < 2e9
    assert told[-1] == "round 2, version 2"
    assert multiprocessing.active_children() == []
    # The service takes it away when it ends.
    assert not (tmp_path / "out" / "state" / "serving.json").exists()
    with pytest.raises(InputError, match="is not empty: choose another --out"):
        emulate(experiment(boston_bundle, 3, 2), EmulationPlan(out=tmp_path / "out"), tell=told.append)


def test_encoded_updates_and_rounded_weights_give_the_simulations_model_too(
    tmp_path: Path, boston_bundle: Bundle
) -> None:
    table = experiment(boston_bundle, 2, 3).model_dump(exclude_none=True)
    table["codec"] = {"name": "rotation+random_k+quantised", "bits": 4, "ratio": 0.3, "error_feedback": True}
    table["codec"]["download_bits"] = 8
    made = Experiment.from_table(table)
    run = simulate(made, tmp_path / "run")
    found = emulate(made, EmulationPlan(out=tmp_path / "out", speed=10.0), tell=silent)
    assert found["model_sha256"] == run.summary["model_sha256"]
    plain = simulate(experiment(boston_bundle, 2, 3), tmp_path / "plain")
    assert found["model_sha256"] != plain.summary["model_sha256"]
    assert run.summary["uplink_bytes"] < plain.summary["uplink_bytes"] / 8
    assert run.summary["downlink_bytes"] < plain.summary["downlink_bytes"]


def test_devices_evaluate_what_a_gate_is_to_judge(tmp_path: Path, boston_bundle: Bundle) -> None:
    table = experiment(boston_bundle, 3, 2).model_dump(exclude_none=True)
    # Whatever they find passes; of 3 phones all are asked, and nobody tries a canary.
    table["release"] = {"gate": "evaluation", "evaluation_reports": 3, "over_selection": 1.0, "canary_ratio": 0.0}
    table["release"]["tolerance_ratio"] = 100.0
    out = tmp_path / "out"
    emulate(Experiment.from_table(table), EmulationPlan(out=out, speed=10.0), tell=silent)
    first = model_rows(out / "state")[1]
    # The next one takes its place, if there is time for that.
    assert first["state"] in {"released", "retired"}
    assert (first["version"], first["evaluations"]) == (1, 3)
    logs = [(folder / "device.log").read_text() for folder in sorted((out / "devices").iterdir())]
    assert all("version 1: loss " in log for log in logs)


@pytest.mark.long
def test_crashes_and_broken_connections_change_no_bit(tmp_path: Path, boston_bundle: Bundle) -> None:
    run = simulate(experiment(boston_bundle, 3, 3), tmp_path / "run")
    plan = EmulationPlan(out=tmp_path / "out", speed=10.0, crash_ratio=0.15, break_ratio=0.5)
    found = emulate(experiment(boston_bundle, 3, 3), plan, tell=silent)
    assert found["crashes"] > 0
    assert found["model_sha256"] == run.summary["model_sha256"]
    assert [row["accepted"] for row in found["devices"]] == [3, 3, 3]


def test_an_interruption_stops_everything(tmp_path: Path, boston_bundle: Bundle) -> None:
    def tell(line: str) -> None:
        if line.startswith("round"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        emulate(experiment(boston_bundle, 2, 50), EmulationPlan(out=tmp_path / "out", speed=10.0), tell=tell)
    assert multiprocessing.active_children() == []
    # The service takes it away when it ends.
    assert not (tmp_path / "out" / "state" / "serving.json").exists()


def test_training_without_finite_updates_ends(tmp_path: Path, boston_bundle: Bundle) -> None:
    table = experiment(boston_bundle, 2, 50, deadline_s=6.0).model_dump(exclude_none=True)
    table["training"]["learning_rate"] = 1e30
    message = (
        r"training diverged in rounds \d+ to \d+: all updates of all devices not finite; start anew with a lower "
        r"training.learning_rate"
    )
    with pytest.raises(TrainingDivergedError, match=message):
        emulate(Experiment.from_table(table), EmulationPlan(out=tmp_path / "out", speed=20.0), tell=silent)
    lines = [json.loads(line) for line in (tmp_path / "out/devices/0/rounds.jsonl").read_text().splitlines()]
    # It backed off, twice as long each time: nobody tries again and again.
    starts_s = [line["start_s"] for line in lines]
    assert all(after - before >= 30.0 * 2**failures for failures, (before, after) in enumerate(pairwise(starts_s)))


KILLED = """
import os, signal, sys
from pathlib import Path
from pocketfleet import Experiment
from pocketfleet.emulation import EmulationPlan, emulate

def tell(line):
    if line.startswith("round"):
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    emulate(Experiment.load(sys.argv[1]), EmulationPlan(out=Path(sys.argv[2]), speed=10.0), tell=tell)
"""


def test_nothing_outlives_a_killed_emulation(tmp_path: Path, boston_bundle: Bundle) -> None:
    (tmp_path / "experiment.toml").write_text(experiment(boston_bundle, 2, 50).to_toml())
    (tmp_path / "killed.py").write_text(KILLED)
    ended = subprocess.run(
        [sys.executable, "killed.py", "experiment.toml", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        # The devices hold these pipes as well: they are read to the end when the last of them is gone.
        capture_output=True,
        timeout=120.0,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    clock, serving = PhoneClock(), tmp_path / "out" / "state" / "serving.json"
    # The service takes it away when it ends.
    while serving.exists():
        assert clock.now_s() < 30.0, "the service goes on"
        clock.wait_wall(0.1)


def test_a_device_that_dies_ends_the_emulation(tmp_path: Path, boston_bundle: Bundle) -> None:
    def tell(line: str) -> None:
        if line.startswith("round"):
            for process in multiprocessing.active_children():
                if process.name == "device-1" and process.pid is not None:
                    os.kill(process.pid, signal.SIGKILL)

    with pytest.raises(PocketfleetError, match=r"the process of device 1 was killed by signal 9: .*device.log"):
        emulate(experiment(boston_bundle, 2, 50), EmulationPlan(out=tmp_path / "out", speed=10.0), tell=tell)
    assert multiprocessing.active_children() == []


def test_a_service_that_does_not_start_is_told(tmp_path: Path, boston_bundle: Bundle) -> None:
    table = experiment(boston_bundle, 2, 1).model_dump(exclude_none=True)
    table["fleet"]["attacks"] = [{"kind": "sign_flip", "ratio": 0.5}]
    with pytest.raises(PocketfleetError, match=r"the service ended \(exit code 2\): .*attacks.*service.log"):
        emulate(Experiment.from_table(table), EmulationPlan(out=tmp_path / "out"), tell=silent)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"speed": 0.0}, "--speed must be above 0, got 0.0"),
        ({"crash_ratio": 1.0}, "--crashes must be 0 or more and under 1, got 1.0"),
        ({"break_ratio": -0.1}, "--breaks must be 0 or more"),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, boston_bundle: Bundle, plan: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        emulate(experiment(boston_bundle, 2, 1), EmulationPlan(out=tmp_path / "out", **plan), tell=silent)
