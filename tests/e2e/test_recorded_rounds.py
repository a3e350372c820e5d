"""A service's log replayed: the same decisions under its plan, others under another."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from recorded_service import experiment_of, record

from pocketfleet import simulate
from pocketfleet.device_sim.run import Run
from pocketfleet.errors import InputError
from pocketfleet.service_export import export_service
from pocketfleet.simulation import resume

if TYPE_CHECKING:
    from pocketfleet import Bundle

# Buffered: five at work, three reports a version.
BUFFERED = ("rounds.policy='buffered'", "rounds.interval_s=0.0", "rounds.max_staleness=20")


@pytest.fixture(scope="module")
def recorded(boston_bundle: "Bundle", tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("recorded")
    record(boston_bundle, folder / "state")
    return export_service(folder / "run", folder / "state")


def replayed(bundle: "Bundle", recorded: Run, out: Path, *settings: str) -> Run:
    experiment = experiment_of(bundle, f"rounds.recording='{recorded.path}'", *settings)
    return simulate(experiment, out)


def test_a_window_chooses_the_same_devices_again(boston_bundle: "Bundle", tmp_path: Path) -> None:
    window = ("rounds.selection_window_s=1.0", "rounds.deadline_s=30.0")
    record(boston_bundle, tmp_path / "state", *window)
    recorded = export_service(tmp_path / "run", tmp_path / "state")
    again = replayed(boston_bundle, recorded, tmp_path / "again", "engine.timing_only=true", *window)
    assert again.summary["events_sha256"] == recorded.summary["events_sha256"]
    assert (recorded.rounds["assigned"].tolist(), recorded.rounds["accepted"].tolist()) == ([5], [3])
    assert again.rounds["held"].tolist() == recorded.rounds["held"].tolist() != [0]
    with pytest.raises(InputError, match="learns from what phones report"):
        replayed(boston_bundle, recorded, tmp_path / "oort", *window, "rounds.selection=oort")


def test_the_same_plan_gives_the_same_decisions(boston_bundle: "Bundle", recorded: Run, tmp_path: Path) -> None:
    again = replayed(boston_bundle, recorded, tmp_path / "again", "engine.timing_only=true")
    pd.testing.assert_frame_equal(
        again.events.astype({"reason": str, "kind": str}), recorded.events.astype({"reason": str, "kind": str})
    )
    assert again.summary["events_sha256"] == recorded.summary["events_sha256"]
    # All that the coordinator says; what became of the model is not replayed.
    decided = [
        "round",
        "model_version",
        "opened_s",
        "closed_s",
        "outcome",
        "looks",
        "assigned",
        "accepted",
        "withdrawn",
    ]
    decided += ["turned_away", "held", "refused", "num_examples", "steps", "staleness_mean", "staleness_max"]
    pd.testing.assert_frame_equal(again.rounds[decided], recorded.rounds[decided])
    for name in ("assigned", "accepted", "rejected", "dropped", "steps", "uplink_bytes"):
        assert again.devices[name].tolist() == recorded.devices[name].tolist(), name
    for name in ("device_rounds", "reports_accepted", "dropouts", "in_flight", "rounds", "rounds_abandoned"):
        assert again.summary[name] == recorded.summary[name], name
    assert again.summary["ended"] == "horizon"


def test_accepted_devices_train_on_what_the_experiment_deals_them(
    boston_bundle: "Bundle", recorded: Run, tmp_path: Path
) -> None:
    trained = replayed(boston_bundle, recorded, tmp_path / "trained")
    assert trained.summary["events_sha256"] == recorded.summary["events_sha256"]
    assert trained.updates["device"].tolist() == recorded.updates["device"].tolist()
    assert trained.rounds["train_loss"].notna().tolist() == [True, False, True]
    assert trained.rounds["test_mse"].iloc[-1] < trained.summary["metrics"]["initial"]["test_mse"]


def test_a_run_that_was_cut_goes_on_to_the_same(boston_bundle: "Bundle", recorded: Run, tmp_path: Path) -> None:
    class CutError(Exception):
        pass

    def cut(stage: str, row: Any) -> None:  # noqa: ANN401 - an observer's
        if stage == "round" and row["round"] == 1:
            raise CutError

    experiment = experiment_of(
        boston_bundle, f"rounds.recording='{recorded.path}'", "engine.timing_only=true", "engine.checkpoint_share=1.0"
    )
    with pytest.raises(CutError):
        simulate(experiment, tmp_path / "cut", observer=cut)
    again = resume(tmp_path / "cut")
    assert again.summary["events_sha256"] == recorded.summary["events_sha256"]


def test_another_plan_decides_otherwise(boston_bundle: "Bundle", recorded: Run, tmp_path: Path) -> None:
    other = replayed(
        boston_bundle,
        recorded,
        tmp_path / "other",
        "engine.timing_only=true",
        "rounds.cohort=2",
        "rounds.over_selection=3",
    )
    # Two reports are enough, and six are asked: the first round closes with the second report, the sixth gets work.
    assert other.rounds["accepted"].tolist()[0] == 2
    assert other.rounds["assigned"].tolist()[0] == 6
    first = other.events[other.events["round"] == 0]
    assert first[first["kind"] == "drop"]["device"].tolist() == [4]
    # Device 5 had one story, of round 2: its report comes as much later as it did then.
    reports = first[first["kind"] == "report"]
    assert sorted(reports["device"]) == [0, 1, 2, 3, 5]
    assert reports["reason"].tolist() == ["accepted"] * 2 + ["late"] * 3
    told = recorded.events[recorded.events["device"] == 5].set_index("kind")["time_s"]
    again = other.events[(other.events["device"] == 5) & (other.events["round"] == 0)].set_index("kind")["time_s"]
    assert again["report"] - again["assign"] == pytest.approx(told["report"] - told["assign"])


def test_a_buffered_service_is_replayed_too(boston_bundle: "Bundle", tmp_path: Path) -> None:
    record(boston_bundle, tmp_path / "state", *BUFFERED)
    run = export_service(tmp_path / "run", tmp_path / "state")
    experiment = experiment_of(boston_bundle, *BUFFERED, f"rounds.recording='{run.path}'", "engine.timing_only=true")
    again = simulate(experiment, tmp_path / "again")
    assert again.summary["events_sha256"] == run.summary["events_sha256"]


def test_what_does_not_fit_is_told(
    boston_bundle: "Bundle", recorded: Run, tmp_path: Path, pocketfleet: Callable[..., Any]
) -> None:
    for settings, message in (
        (("fleet.devices=6",), "is of 8 devices, fleet.devices is 6: set it to 8 or more"),
        ((f"rounds.recording='{tmp_path}'",), r"holds no service's log \(decisions.parquet\)"),
    ):
        with pytest.raises(InputError, match=message):
            replayed(boston_bundle, recorded, tmp_path / "run", *settings)
        assert not (tmp_path / "run").exists()
    toml = recorded.path / "experiment.toml"
    called = pocketfleet("serve", toml, "--state", "state", "--set", f"rounds.recording={recorded.path}")
    assert called.code == 2
    assert "rounds.recording is of simulations" in called.err
