"""What an experiment says of days and memory reaches the events: zones, conditions that hold always, kills."""

from pathlib import Path

import pandas as pd
import pytest

from pocketfleet import Bundle, Experiment, Run, resume, simulate

# By the clock alone; training takes some minutes.
SETTINGS = (
    "engine.checkpoint_share=1.0",
    "fleet.devices=300",
    "fleet.availability='flash-2020'",
    "partition.kind=iid",
    "partition.examples_per_device=20",
    "training.batch_size=8",
    "training.steps=4_000_000",
    "rounds.cohort=60",
    "rounds.minimum_ratio=0.1",
    "rounds.deadline_s=3600.0",
    "rounds.count=5",
    "rounds.interval_s=18000.0",
    "engine.timing_only=true",
)
# Phones with little memory, which may train while they are used.
SMALL = (
    "fleet.overrides=[{devices='all', free_memory_bytes=300_000_000}]",
    "eligibility.idle=false",
    "eligibility.charging=false",
)


@pytest.fixture
def run(boston_bundle: Bundle, tmp_path: Path):
    def running(*settings: str) -> Run:
        chosen = Experiment.load("boston-fleet", [*SETTINGS, f"task.bundle='{boston_bundle.path}'", *settings])
        return simulate(chosen, tmp_path / str(len(list(tmp_path.iterdir()))))

    return running


def test_apps_in_front_kill_training_on_small_phones(run) -> None:
    constant, moments, large = (
        run(*SMALL, "fleet.memory_moments=false"),
        run(*SMALL),
        run("eligibility.idle=false", "eligibility.charging=false"),
    )
    assert "out_of_memory" not in constant.summary["dropouts"]
    assert moments.summary["dropouts"]["out_of_memory"] > 5
    assert moments.summary["ineligible"]["low_memory"] > 5
    # The same apps on the catalogue's phones.
    assert large.summary["dropouts"].get("out_of_memory", 0) < moments.summary["dropouts"]["out_of_memory"] / 3
    drops = moments.events[(moments.events["kind"] == "drop") & (moments.events["reason"] == "out_of_memory")]
    trained = moments.events[(moments.events["kind"] == "train") & (moments.events["reason"] == "out_of_memory")]
    pd.testing.assert_series_equal(drops["time_s"], trained["time_s"], check_index=False)
    # The work is lost: nobody who was killed uploads in that attempt.
    assert "dropouts_out_of_memory" in moments.rounds


def test_a_run_with_kills_and_zones_continues_to_the_same_events(boston_bundle: Bundle, tmp_path: Path, run) -> None:
    zones = "fleet.time_zones={'-5' = 1.0, '5.5' = 2.0}"
    whole = run(*SMALL, zones)
    chosen = Experiment.load("boston-fleet", [*SETTINGS, f"task.bundle='{boston_bundle.path}'", *SMALL, zones])
    stopped, closed = tmp_path / "stopped", []

    def stop_after_two(stage: str, row: object) -> None:
        closed.append(stage)
        if closed.count("round") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(chosen, stopped, observer=stop_after_two)
    assert resume(stopped).summary["events_sha256"] == whole.summary["events_sha256"]
    assert whole.summary["dropouts"]["out_of_memory"] > 0


def test_a_day_of_which_everything_holds_always_is_no_day(run) -> None:
    held = run("fleet.always=['idle', 'charging', 'wifi']")
    plain = run("fleet.availability=always")
    assert held.summary["events_sha256"] == plain.summary["events_sha256"]
    charging = run("fleet.always=['charging']")
    assert "not_charging" not in charging.summary["ineligible"]
    assert charging.summary["ineligible"]["in_use"] > 0
    assert charging.summary["events_sha256"] != held.summary["events_sha256"]


def test_zones_move_the_days_and_one_at_greenwich_does_not(run) -> None:
    plain, greenwich, east = run(), run("fleet.time_zones={'0' = 1.0}"), run("fleet.time_zones={'8' = 1.0}")
    assert greenwich.summary["events_sha256"] == plain.summary["events_sha256"]
    assert east.summary["events_sha256"] != plain.summary["events_sha256"]
