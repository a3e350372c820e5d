"""Flower apps, unchanged, with phones as their clients."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

APPS = Path(__file__).parents[1] / "flower_apps"
KINDS = ("messages", "numpy_clients")
# The weights that these apps end with under Flower's own simulation, flwr 1.42.0 with ray 2.55.1; both gave the same
# but for the last bit:
# flwr run messages --federation-config "num-supernodes=6" --run-config 'out="/tmp/peer.npz" min-nodes=6' --stream
UNDER_FLWR_RUN = [
    0.3680005480693055,
    -0.3236153125417761,
    -0.6571645770385262,
    -0.40642381090510404,
    0.19759539353682626,
    0.6155396518848246,
    0.5619765228360757,
    -0.12393228912908259,
    -0.03297188383075151,
]
WORK = "[flower]\ntrain_flops_per_example = 1e6\nevaluate_flops_per_example = 3e5\n"
# Links that are never lost, full batteries.
STEADY = '[[fleet.overrides]]\ndevices = "all"\nbattery_ratio = 1.0\nlink_losses_per_hour = 0.0\n'

Call = Callable[..., Any]


def fleet(text: str = "", *, devices: int = 6) -> Path:
    """A fleet file in the working directory."""
    Path("fleet.toml").write_text(f"seed = 3\n[fleet]\ndevices = {devices}\n{text}\n{WORK}")
    return Path("fleet.toml")


def run(pocketfleet: Call, kind: str, *more: str, out: str = "run") -> dict[str, object]:
    words = [word for setting in more for word in ("--run-config", setting)]
    called = pocketfleet("flower", APPS / kind, "--fleet", "fleet.toml", "--out", out, "--json", *words)
    assert called.code == 0, called.err
    return json.loads(called.out)


def table(name: str, out: str = "run") -> pd.DataFrame:
    return pd.read_parquet(Path(out) / f"{name}.parquet")


@pytest.mark.parametrize("kind", KINDS)
def test_an_app_ends_as_under_flwr_run(pocketfleet: Call, kind: str) -> None:
    fleet(STEADY)
    summary = run(pocketfleet, kind, "min-nodes=6", "out=final.npz")
    # Sums of six doubles in another order.
    with np.load("final.npz") as saved:
        assert saved["weights"] == pytest.approx(UNDER_FLWR_RUN, abs=1e-12)
    assert (summary["rounds"], summary["reports_accepted"], summary["dropouts"]) == (3, 36, {})
    rounds = table("rounds")
    assert rounds["message_type"].tolist() == ["train", "evaluate"] * 3
    assert (rounds["accepted"] == 6).all()
    # 20, 25, ... 45 points.
    assert rounds["num_examples"].tolist() == [195] * 6
    assert table("devices")["num_training"].tolist() == [20, 25, 30, 35, 40, 45]
    metric = "test_eval_loss" if kind == "messages" else "test_loss"
    losses = rounds.loc[rounds["message_type"] == "evaluate", metric]
    assert losses.is_monotonic_decreasing
    assert summary["metrics"]["last"][metric] == pytest.approx(float(losses.iloc[-1]))


def test_a_nodes_own_state_and_the_apps_own_metrics_come_through(pocketfleet: Call) -> None:
    fleet(STEADY)
    run(pocketfleet, "messages", "min-nodes=6", "out=final.npz")
    with np.load("final.npz") as file:
        saved = dict(file)
    assert saved["times"].tolist() == [1.0, 2.0, 3.0]
    evaluated = table("rounds").dropna(subset="test_eval_loss")
    assert saved["losses"] == pytest.approx(evaluated["test_eval_loss"].to_numpy(), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_time_bytes_and_joules_are_the_phones(pocketfleet: Call, kind: str) -> None:
    fleet(STEADY)
    summary = run(pocketfleet, kind, "min-nodes=6")
    events, rounds = table("events"), table("rounds")
    for number, row in enumerate(rounds.to_dict("records")):
        own = events[(events["round"] == number) & (events["device"] >= 0)]
        assert row["opened_s"] == own.loc[own["kind"] == "assign", "time_s"].min()
        assert row["closed_s"] == own.loc[own["kind"] == "report", "time_s"].max()
        assert row["downlink_bytes"] == own.loc[own["kind"] == "download", "bytes"].sum() > 0
        assert row["uplink_bytes"] == own.loc[own["kind"] == "upload", "bytes"].sum() > 0
    assert (rounds["opened_s"].to_numpy()[1:] == rounds["closed_s"].to_numpy()[:-1]).all()
    assert summary["virtual_seconds"] == rounds["closed_s"].iloc[-1]
    trained = events[(events["kind"] == "train") & (events["round"] == 0)].set_index("device")
    # Twice the examples take twice as long on the same phone: seconds an example are those of the phone.
    first_s = trained["seconds"] / trained["steps"]
    again = events[(events["kind"] == "train") & (events["round"] == 4)].set_index("device")
    assert (again["seconds"] / again["steps"])[first_s.index].to_numpy() == pytest.approx(first_s.to_numpy())
    # The bundle is in the first download alone.
    assert rounds["downlink_bytes"].iloc[0] > 6 * 5000 + rounds["downlink_bytes"].iloc[2]
    assert summary["energy_joules"] > 0.0


def test_the_same_fleet_gives_the_same_run(pocketfleet: Call) -> None:
    fleet('availability = "flash-2020"\n', devices=40)
    digests = [
        run(pocketfleet, "messages", "fraction-train=0.5", "num-server-rounds=2", out=out)["events_sha256"]
        for out in ("one", "two")
    ]
    assert digests[0] == digests[1]


def test_work_that_nobody_gave_is_measured(pocketfleet: Call) -> None:
    Path("fleet.toml").write_text(f"seed = 3\n[fleet]\ndevices = 3\n{STEADY}")
    run(pocketfleet, "messages", "num-server-rounds=1")
    trained = table("events").query("kind == 'train'")
    # A host's millisecond or so of NumPy, times the ratio of peaks: more than the least, a microsecond, and no minutes.
    assert trained["seconds"].between(1e-5, 60.0).all()
    assert len(trained) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_phones_of_a_real_day_are_waited_for_and_drop_out(pocketfleet: Call, kind: str) -> None:
    # 40 phones on their users' day, with links that are often lost for good; half of the connected ones are asked.
    often = '[[fleet.overrides]]\ndevices = "all"\nlink_losses_per_hour = 3000.0\ndown_bits_per_s = 2e5\n'
    fleet(f'availability = "flash-2020"\noutage_limit_s = 1.0\n{often}', devices=40)
    summary = run(pocketfleet, kind, "fraction-train=0.5", "min-nodes=3", "num-server-rounds=4")
    assert summary["ended"] == "rounds"
    assert summary["dropouts"]["link_lost"] > 0
    rounds, events = table("rounds"), table("events")
    lost = int((events["kind"] == "drop").sum())
    assert int(rounds["accepted"].sum()) == summary["device_rounds"] - lost - summary["in_flight"]
    # Who is asleep, in use or unplugged is not connected.
    assert (rounds["candidates"] < 40).all()
    assert set(summary["ineligible"]) & {"in_use", "not_charging", "metered"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_raises_is_a_failure_and_the_run_goes_on(pocketfleet: Call, kind: str) -> None:
    fleet(STEADY)
    summary = run(pocketfleet, kind, "min-nodes=6", "fails-on-partition=2", "out=final.npz")
    assert summary["dropouts"] == {"app_failed": 3}
    assert (summary["rounds"], summary["reports_accepted"]) == (3, 33)
    assert table("devices")["accepted"].tolist() == [6, 6, 3, 6, 6, 6]
    if kind == "numpy_clients":
        with np.load("final.npz") as saved:
            assert int(saved["failures"]) == 1


def test_a_report_is_drawn_of_it(pocketfleet: Call) -> None:
    fleet(STEADY)
    run(pocketfleet, "messages", "min-nodes=6")
    assert pocketfleet("report", "run").code == 0
    page = Path("run/report.html").read_text()
    assert "the phones&#x27; evaluation replies say" in page or "the phones' evaluation replies say" in page
    assert "pocketfleet flower" in page
    assert "--run-config min-nodes=6" in page
    assert "the app keeps its own model" in page


def test_more_nodes_than_there_are_phones(pocketfleet: Call) -> None:
    fleet(STEADY, devices=3)
    for kind in KINDS:
        called = pocketfleet(
            "flower", APPS / kind, "--fleet", "fleet.toml", "--run-config", "min-nodes=4", "--out", kind, "--quiet"
        )
        assert called.code == 2
        assert "the app waits for more nodes than the fleet has (3): raise fleet.devices" in called.err


def test_a_fleet_that_is_never_there_ends_at_the_horizon(pocketfleet: Call) -> None:
    fleet('[[fleet.overrides]]\ndevices = "all"\nhas_charger = false\n')
    called = pocketfleet(
        *("flower", APPS / "messages", "--fleet", "fleet.toml", "--out", "run"),
        *("--set", "messages.horizon_s=5000", "--quiet"),
    )
    assert called.code == 0, called.err
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["ended"], summary["virtual_seconds"], summary["rounds"]) == ("horizon", 5000.0, 0)
    assert summary["ineligible"] == {"not_charging": 6}


def test_a_server_that_raises_is_told_with_its_place(pocketfleet: Call) -> None:
    fleet(STEADY)
    called = pocketfleet(
        *("flower", APPS / "messages", "--fleet", "fleet.toml", "--quiet"),
        *("--run-config", "num-server-rounds=none"),
    )
    assert called.code == 2
    assert "the app's ServerApp raised ValueError: invalid literal for int()" in called.err
    assert "server_app.py, line" in called.err


def test_without_flower_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text("[fleet]\ndevices = 3\n")
    program = (
        "import sys; sys.modules['flwr'] = None\n"
        "from pocketfleet.cli import main\n"
        f"sys.argv = ['pocketfleet', 'flower', {str(APPS / 'messages')!r}, '--fleet', 'fleet.toml']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "needs the package flwr, which is not installed: pip install 'pocketfleet[flower]'" in done.stderr
