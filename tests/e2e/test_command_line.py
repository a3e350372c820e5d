"""The program as a user calls it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from pocketfleet import Bundle, Run
from pocketfleet.errors import InputError
from pocketfleet.training.weights import tensors_sha256

SUMMARY_KEYS = {
    "task",
    "program",
    "runtime",
    "rounds",
    "devices",
    "device_rounds",
    "reports_accepted",
    "dropouts",
    "virtual_seconds",
    "wall_seconds",
    "uplink_bytes",
    "downlink_bytes",
    "metered_bytes",
    "energy_joules",
    "metrics",
    "model_sha256",
    "events_sha256",
}


def test_lists(pocketfleet) -> None:
    experiments = json.loads(pocketfleet("list", "experiments", "--json").out)
    assert [row["experiment"] for row in experiments] == [
        *("boston-fleet", "boston-two-phones", "boston-two-phones-private"),
        *("mnist-days", "mnist-fleet", "mnist-million"),
        *("shakespeare-roles", "synthetic-skew", "watch-ten"),
    ]
    assert {row["task"] for row in json.loads(pocketfleet("list", "tasks", "--json").out)} == {
        *("boston", "mnist", "watch", "shakespeare", "synthetic"),
        *("leaf", "arrow_dataset", "device_files"),
    }
    phones = json.loads(pocketfleet("list", "phones", "--json").out)
    assert len(phones) >= 12
    assert "Pixel 8" in pocketfleet("list", "phones").out
    networks = {row["network"]: row for row in json.loads(pocketfleet("list", "networks", "--json").out)}
    # Medians of SIGCOMM21-5G/artifact, 4G-LTE: 117.2 and 31.2 Mbit/s, 89 ms.
    assert list(networks["lte-2021"].values()) == ["lte-2021", "117.2", "31.2", "89", "yes"]
    assert networks["places-2021"]["metered"] == "off Wi-Fi"
    mixes = {row["mix"]: row for row in json.loads(pocketfleet("list", "mixes", "--json").out)}
    assert {"global-2024", "europe-2020", "india-2024"} <= set(mixes)
    refused = pocketfleet("list", "cars")
    assert refused.code == 2
    assert "list takes experiments, tasks, phones, mixes or networks, or rounds, models or devices with" in refused.err


def test_simulate_prints_progress_and_a_table(pocketfleet, boston_bundle: Bundle) -> None:
    arguments = ["simulate", "boston-two-phones", "--set", f"task.bundle={boston_bundle.path}"]
    called = pocketfleet(*arguments, "--set", "rounds.count=3", "--plot")
    assert called.code == 0
    assert "boston-two-phones: version 3/3, 2 of 2 phones reported" in called.err
    assert "\x1b" not in called.err  # plain where nobody watches
    assert "test_mse" in called.out
    assert "runs/boston-two-phones/plot.png" in called.out.replace("\n", "")
    assert Path("runs/boston-two-phones/plot.png").read_bytes().startswith(b"\x89PNG")
    called = pocketfleet(*arguments, "--set", "rounds.count=3", "--force", "--quiet")
    assert (called.code, called.out, called.err) == (0, "", "")


def test_the_summary_and_the_tables_say_the_same(pocketfleet, boston_bundle: Bundle) -> None:
    called = pocketfleet(
        "simulate",
        "boston-two-phones",
        "--set",
        f"task.bundle={boston_bundle.path}",
        "--set",
        "rounds.count=7",
        "--out",
        "run",
        "--json",
    )
    summary = json.loads(called.out)
    assert summary.keys() >= SUMMARY_KEYS
    run = Run("run")
    assert run.summary == summary
    assert len(run.rounds) == summary["rounds"] == 7
    assert summary["device_rounds"] == (run.events["kind"] == "assign").sum() == 14
    assert summary["reports_accepted"] == run.rounds["accepted"].sum() == run.devices["accepted"].sum() == 14
    assert summary["metrics"]["last"]["test_mse"] == run.rounds["test_mse"].iloc[-1]
    assert summary["metrics"]["mean_of_last_five"]["test_mse"] == pytest.approx(run.rounds["test_mse"][2:].mean())
    assert summary["uplink_bytes"] == run.events.query("kind == 'upload'")["bytes"].sum()
    assert summary["virtual_seconds"] == run.rounds["closed_s"].iloc[-1]
    assert run.devices["metric_personalised"].notna().all()
    assert summary["personalisation"]["personalised"] == pytest.approx(run.devices["metric_personalised"].mean())
    assert pd.read_parquet("run/events.parquet").equals(run.events)


def test_the_trained_models_come_out(pocketfleet, boston_bundle: Bundle) -> None:
    settings = ["--set", f"task.bundle={boston_bundle.path}", "--set", "rounds.count=3", "--out", "run", "--quiet"]
    assert pocketfleet("simulate", "boston-two-phones", *settings).code == 0
    run = Run("run")
    trained = run.export("trained")
    assert tensors_sha256(run.weights().trainable) == run.summary["model_sha256"]
    assert tensors_sha256(trained.weights().trainable) == run.summary["model_sha256"]
    assert tensors_sha256(Bundle.load(Path("run/bundle")).weights().trainable) != run.summary["model_sha256"]
    assert trained.weights().frozen["0.mean"].tolist() == run.weights().frozen["0.mean"].tolist()
    own = [tensors_sha256(run.personalised(device).trainable) for device in (0, 1)]
    assert len({*own, run.summary["model_sha256"]}) == 3
    with pytest.raises(InputError, match="device 2 has no model of its own"):
        run.personalised(2)
    with pytest.raises(InputError, match="exists"):
        run.export("trained")


def test_a_fleet_that_never_trained_says_why(pocketfleet, boston_bundle: Bundle) -> None:
    settings = ["--set", f"task.bundle={boston_bundle.path}", "--set", "fleet.network=lte-2021", "--out", "run"]
    called = pocketfleet("simulate", "boston-two-phones", *settings)
    assert called.code == 0
    assert "2 metered; see [eligibility], fleet.network" in " ".join(called.out.split())


def test_export_and_verify(pocketfleet) -> None:
    called = pocketfleet("export", "boston", "--out", "bundle", "--option", "leave_out_b=true", "--max-batch", "4")
    assert called.code == 0, called.err
    manifest = json.loads(Path("bundle/manifest.json").read_text())
    assert manifest["task"] == {"name": "boston", "path": "boston", "options": {"leave_out_b": True}}
    called = pocketfleet("verify", "bundle", "--json")
    assert called.code == 0, called.err
    rows = json.loads(called.out)
    assert all(row["passed"] for row in rows)
    assert {row["runtime"] for row in rows} == {"executorch", "onnx"}
    assert pocketfleet("export", "boston", "--out", "bundle").code == 2


def test_init_starts_a_task_that_runs(pocketfleet) -> None:
    called = pocketfleet("init", "flats")
    assert called.code == 0
    assert sorted(path.name for path in Path().iterdir()) == ["flats.csv", "flats.py", "flats.toml"]
    before = Path("flats.py").read_text()
    assert pocketfleet("init", "flats").code == 2
    assert pocketfleet("init", "my-flats").code == 2
    assert Path("flats.py").read_text() == before
    called = pocketfleet("simulate", "flats.toml", "--json")
    assert called.code == 0, called.err
    metrics = json.loads(called.out)["metrics"]
    assert metrics["last"]["test_mae"] < 0.2 * metrics["initial"]["test_mae"]


def test_doctor_finds_everything_here(pocketfleet) -> None:
    called = pocketfleet("doctor", "--json")
    assert called.code == 0, called.out
    assert all(row["works"] for row in json.loads(called.out))


def test_doctor_says_what_is_missing_and_what_to_do(pocketfleet, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    called = pocketfleet("doctor", "--json")
    assert called.code == 1
    rows = {row["what"]: row for row in json.loads(called.out)}
    assert not rows["onnxruntime"]["works"]
    assert "pip install" in rows["onnxruntime"]["do"]
    assert rows["torch"]["works"]


def test_help_takes_under_a_third_of_importing_torch() -> None:
    program = "from pocketfleet.cli import main; main()"

    def seconds(*arguments: str) -> float:
        times = []
        for _ in range(3):
            start_s = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            times.append(time.perf_counter() - start_s)
        return min(times)

    assert seconds("-c", program, "--help") < seconds("-c", "import torch") / 3
