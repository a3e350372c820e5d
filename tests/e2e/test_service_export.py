"""What a service did, as a run directory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from recorded_service import record

from pocketfleet.device_sim.page import page
from pocketfleet.device_sim.run import Run
from pocketfleet.service_export import export_service
from pocketfleet.training.privacy.accountant import Accountant
from pocketfleet.training.server.administration import device_rows
from pocketfleet.training.weights import tensors_sha256

if TYPE_CHECKING:
    from pocketfleet import Bundle


@pytest.fixture(scope="module")
def state(boston_bundle: "Bundle", tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "state"
    record(boston_bundle, folder)
    return folder


@pytest.fixture(scope="module")
def run(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return export_service(tmp_path_factory.mktemp("exported") / "run", state)


def told(events: pd.DataFrame, kind: str) -> list[tuple[int, int, str]]:
    rows = events[events["kind"] == kind]
    return list(zip(rows["round"].tolist(), rows["device"].tolist(), rows["reason"].astype(str), strict=True))


def test_every_assignment_ends_once(run: Run) -> None:
    events = run.events
    assert [(row, device) for row, device, _ in told(events, "assign")] == [
        *((0, device) for device in range(5)),
        *((1, 6), (1, 6), (1, 7), (1, 0)),
        *((2, 2), (2, 5), (2, 1)),
        (3, 3),
    ]
    assert sorted(told(events, "report")) == [
        *((0, 0, "accepted"), (0, 1, "accepted"), (0, 2, "accepted"), (0, 3, "late")),
        *((1, 6, "deadline_passed"), (1, 7, "accepted")),
        *((2, 1, "accepted"), (2, 2, "accepted"), (2, 5, "accepted")),
    ]
    # Device 4 of round 0, device 0 of round 1; the first assignment of device 6 was lost.
    assert sorted(told(events, "drop")) == [(0, 4, "silent"), (1, 0, "silent"), (1, 6, "withdrawn")]
    assert told(events, "close") == [(0, -1, "cohort"), (1, -1, "abandoned"), (2, -1, "cohort")]
    assert run.summary["in_flight"] == 1
    assert events["time_s"].is_monotonic_increasing
    assert events["sequence"].tolist() == list(range(len(events)))
    # A closing comes after its last report.
    first = events[events["round"] == 0]
    closed = int(first[first["kind"] == "close"]["sequence"].iloc[0])
    accepted = first[(first["kind"] == "report") & (first["reason"] == "accepted")]
    assert accepted["sequence"].max() < closed
    # At the deadline silence comes first.
    second = events[events["round"] == 1]
    closed_s = second[second["kind"] == "close"]["time_s"].iloc[0]
    assert second[second["time_s"] == closed_s]["reason"].tolist() == ["silent", "abandoned"]


def test_rounds_devices_and_updates_are_the_services(run: Run, state: Path) -> None:
    rounds = run.rounds
    assert rounds["outcome"].tolist() == ["cohort", "abandoned", "cohort"]
    assert rounds["model_version"].tolist() == [1, 1, 2]
    # Check-ins: six in round 0, four in round 1, three in round 2; one found the round full.
    assert rounds["looks"].tolist() == [6, 4, 3]
    assert rounds["turned_away"].tolist() == [1, 0, 0]
    assert rounds["assigned"].tolist() == [5, 4, 3]
    assert rounds["accepted"].tolist() == [3, 1, 3]
    assert rounds["withdrawn"].tolist() == [0, 1, 0]
    # 12 and the number of each assignment: 0, 1, 2; and 9, 10, 11.
    assert rounds["num_examples"].tolist() == [39, 0, 66]
    assert rounds["steps"].tolist() == [9, 0, 9]
    assert rounds["train_loss"].isna().tolist() == [False, True, False]
    assert rounds["dropouts_silent"].tolist() == [1, 1, 0]
    devices = run.devices
    assert devices["name"].tolist() == [f"device {number}" for number in range(8)]
    assert devices["assigned"].tolist() == [2, 2, 2, 2, 1, 1, 2, 1]
    assert devices["accepted"].tolist() == [1, 2, 2, 0, 0, 1, 0, 1]
    assert devices["num_training"].tolist() == [16, 16, 16, 0, 0, 16, 0, 16]
    assert run.updates["device"].tolist() == [0, 1, 2, 1, 2, 5]
    assert (run.updates["end_s"] > run.updates["start_s"]).all()
    assert run.summary["reports_accepted"] == 7
    assert run.summary["dropouts"] == {"deadline_passed": 1, "late": 1, "silent": 2, "withdrawn": 1}
    uploads = run.events[run.events["kind"] == "upload"]
    assert run.summary["uplink_bytes"] == int(uploads["bytes"].sum()) > 0
    # No device is named by more than its number.
    texts = [
        (run.path / "summary.json").read_text(),
        *map(str, run.devices.itertuples()),
        *map(str, run.events.columns),
    ]
    assert not any(row["device_id"] in text for row in device_rows(state) for text in texts)
    decisions = pd.read_parquet(run.path / "decisions.parquet")
    assert "note" not in decisions
    assert decisions["idle"].dropna().tolist() == [False]


def test_the_model_is_the_newest_version(run: Run, state: Path) -> None:
    weights = run.weights()
    assert tensors_sha256(weights.trainable | weights.buffers) == run.summary["model_sha256"]
    bundle = run.export(run.path.parent / "trained")
    assert bundle.path.is_dir()
    assert (run.path / "bundle").is_dir()
    assert not (run.path / "bundle").is_symlink()


def test_its_page_and_plots_are_drawn(run: Run, pocketfleet: Callable[..., Any]) -> None:
    text = page(run)
    assert "What a service of pocketfleet did, population tiny, up to version 2" in text
    assert "A simulated run" not in text
    assert pocketfleet("report", run.path).code == 0
    assert run.plot().stat().st_size > 0


def test_the_command_writes_it_whole_or_says_why_not(
    state: Path, tmp_path: Path, pocketfleet: Callable[..., Any]
) -> None:
    done = pocketfleet("admin", "export", "run", "--state", state)
    assert done.code == 0, done.err
    assert "2 rounds, 8 devices" in done.out
    again = pocketfleet("admin", "export", "run", "--state", state)
    assert (again.code, "replace it with --force" in again.err) == (2, True)
    before = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert pocketfleet("admin", "export", "run", "--state", state, "--force").code == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    for out, folder, message in (
        ("other", state, "holds something that is no run"),
        ("new", tmp_path, "is no service's state"),
    ):
        called = pocketfleet("admin", "export", out, "--state", folder)
        assert called.code == 2
        assert message in called.err
    assert not list(tmp_path.glob(".*"))
    # A log that does not fit the rounds is no log of theirs.
    altered = tmp_path / "altered"
    altered.mkdir()
    for name in ("bundle", "files", "service.sqlite"):
        (altered / name).symlink_to(state / name)
    toml = (state / "experiment.toml").read_text()
    (altered / "experiment.toml").write_text(toml.replace("cohort = 3", "cohort = 2"))
    called = pocketfleet("admin", "export", "new", "--state", altered)
    assert called.code == 2
    assert "come out otherwise than they were written down" in called.err


def test_a_private_service_says_what_it_gave_away(boston_bundle: "Bundle", tmp_path: Path) -> None:
    private = ("mechanism=central", "max_norm=0.5", "noise_multiplier=0.9", "delta=1e-6", "max_participations=3")
    settings = [f"privacy.{setting}" for setting in private]
    record(boston_bundle, tmp_path / "state", *settings, "rounds.count=8")
    run = export_service(tmp_path / "run", tmp_path / "state")
    # Devices 0, 1 and 2 are in the first model; the second round is abandoned; devices 1 and 2 are in two models.
    accountant = Accountant(accounting="participations", noise_multiplier=0.9, delta=1e-6)
    once, twice = (accountant.epsilon(rounds=times, participations=times) for times in (1, 2))
    assert run.rounds["epsilon"].tolist() == [once, once, twice]
    assert run.rounds["clip_norm"].tolist() == [0.5, 0.5, 0.5]
    assert (run.summary["privacy"]["epsilon"], run.summary["privacy"]["noise_multiplier"]) == (twice, 0.9)
    assert "<h2>Privacy</h2>" in page(run)
