"""Rounds by the clock alone: the same events as with training, and a day of a population too large to train."""

from pathlib import Path

import pytest

from pocketfleet import Experiment, Run, simulate
from pocketfleet.errors import InputError
from pocketfleet.export.bundle import Bundle

SETTINGS = (
    "fleet.availability='flash-2020'",
    "partition.examples_per_device=20",
    "rounds.cohort=10",
    "rounds.minimum_ratio=0.2",
    "training.batch_size=8",
)


def run(bundle: Bundle, out: Path, *settings: str) -> Run:
    experiment = Experiment.load("boston-fleet", [*SETTINGS, f"task.bundle='{bundle.path}'", *settings])
    return simulate(experiment, out, force=True)


@pytest.mark.parametrize("pace", ["rounds.pace_s=0.0", "rounds.pace_s=1800.0"])
def test_the_clock_alone_makes_the_very_events_of_training(boston_bundle: Bundle, tmp_path: Path, pace: str) -> None:
    settings = (pace, "fleet.devices=300", "rounds.count=6", "training.epochs=40")
    trained = run(boston_bundle, tmp_path / "trained", *settings)
    timed = run(boston_bundle, tmp_path / "timed", *settings, "engine.timing_only=true")
    assert timed.summary["events_sha256"] == trained.summary["events_sha256"]
    assert timed.summary["rounds"] == 6
    same = ["device_rounds", "dropouts", "ineligible", "energy_joules", "virtual_seconds", "device_steps"]
    assert {name: timed.summary[name] for name in same} == {name: trained.summary[name] for name in same}
    # What it does not know it does not tell.
    assert timed.summary["timing_only"]
    assert not trained.summary["timing_only"]
    assert timed.summary["metrics"] == {"initial": {}, "last": {}, "mean_of_last_five": {}}
    assert timed.summary["personalisation"]["devices"] == 0
    assert timed.rounds["train_loss"].isna().all()
    for ask in (timed.weights, lambda: timed.personalised(0), lambda: timed.export(tmp_path / "trained-bundle")):
        with pytest.raises(InputError, match="was timing only: nothing was trained"):
            ask()
    assert not (tmp_path / "trained-bundle").exists()


def test_some_hours_of_many_phones_costs_what_its_rounds_ask_for(boston_bundle: Bundle, tmp_path: Path) -> None:
    day = ("rounds.count=100000", "rounds.horizon_s=21600.0", "engine.timing_only=true", "rounds.interval_s=0.0")
    looks = {}
    for devices in (2000, 20_000):
        # A cohort of fixed size from a fleet whose pace grows with it.
        settings = (*day, f"fleet.devices={devices}", f"rounds.pace_s={devices * 0.5}")
        found = run(boston_bundle, tmp_path / str(devices), *settings)
        assert found.summary["ended"] == "horizon"
        assert found.summary["virtual_seconds"] == 21_600.0
        # Two phones look each second, one in twelve of them may train: 10 report in some 60 s, 350 rounds in six hours.
        assert 200 < found.summary["rounds"] < 600
        assert found.summary["device_rounds"] > 2000
        looks[devices] = found.rounds["looks"].sum() / found.summary["device_rounds"]
        assert 5.0 < looks[devices] < 30.0
    # Ten times the phones, the same work for an assignment.
    assert looks[20_000] == pytest.approx(looks[2000], rel=0.3)
