"""Heat reaches a run from its experiment: who may start, how long training takes, what stops it, and a resumed run."""

from pathlib import Path

import pytest

from pocketfleet import Bundle, Experiment, Run, resume, simulate
from pocketfleet.errors import InputError

PHONES = ["Galaxy S24"] * 4
# A Galaxy S24, whose fastest core draws 9 W; with steps of seconds, two of them train for hours.
SETTINGS = (
    "engine.checkpoint_share=1.0",
    "fleet.devices=4",
    "fleet.availability=always",
    "partition.examples_per_device=40",
    "training.steps=2000",
    "rounds.count=3",
    "rounds.cohort=4",
    "rounds.over_selection=1.0",
    "rounds.deadline_s=200000",
    "rounds.horizon_s=500000",
    "engine.timing_only=true",
)
SLOW = (
    '[[fleet.overrides]]\ndevices = "all"\nbattery_ratio = 1.0\n'
    "[[fleet.overrides]]\ndevices = [0, 1]\npeak_flops_ratio = 1e-6\n"
)


def experiment(bundle: Bundle, *settings: str) -> Experiment:
    text = Experiment.load("boston-fleet", [*SETTINGS, f"task.bundle={bundle.path}"]).to_toml()
    text = text.replace("overrides = []\n", "").replace("phones = []", f"phones = {PHONES}")
    return Experiment.from_toml(text + SLOW, settings)


@pytest.fixture(scope="module")
def warm(boston_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return simulate(experiment(boston_bundle), tmp_path_factory.mktemp("warm") / "run")


def test_long_training_is_held_back_and_short_training_is_not(warm: Run, boston_bundle: Bundle, tmp_path: Path) -> None:
    cold = simulate(experiment(boston_bundle, "fleet.heat=false"), tmp_path / "cold")
    slow, fast = warm.devices.iloc[:2], warm.devices.iloc[2:]
    assert (slow["held_back_s"] > 0.3 * slow["train_s"]).all()
    assert (fast["held_back_s"] == 0.0).all()
    assert (cold.devices["held_back_s"] == 0.0).all()
    assert (slow["steps"] == cold.devices["steps"].iloc[:2]).all()
    # The same work takes longer, and fewer joules.
    assert (slow["train_s"] > 1.2 * cold.devices["train_s"].iloc[:2]).all()
    assert (slow["energy_joules"] < 0.8 * cold.devices["energy_joules"].iloc[:2]).all()
    assert fast["train_s"].tolist() == pytest.approx(cold.devices["train_s"].iloc[2:].tolist())


def test_a_hotter_room_takes_longer(warm: Run, boston_bundle: Bundle, tmp_path: Path) -> None:
    hot = simulate(experiment(boston_bundle, "fleet.room_celsius=35.0"), tmp_path / "run")
    assert (hot.devices["train_s"].iloc[:2] > 1.1 * warm.devices["train_s"].iloc[:2]).all()


def test_a_phone_too_hot_stops_and_its_partial_work_counts(boston_bundle: Bundle, tmp_path: Path) -> None:
    hot = simulate(experiment(boston_bundle, "fleet.room_celsius=42.0", "rounds.count=1"), tmp_path / "run")
    trained = hot.events.query("kind == 'train' and reason == 'too_hot'")
    assert set(trained["device"]) == {0, 1}
    assert ((trained["steps"] > 0) & (trained["steps"] < 2000)).all()
    assert (hot.events.query("kind == 'report'")["reason"] == "accepted").all()
    discarding = simulate(
        experiment(boston_bundle, "fleet.room_celsius=42.0", "rounds.count=1", "rounds.partial_work=discard"),
        tmp_path / "discard",
    )
    assert discarding.summary["dropouts"]["too_hot"] >= 2


def test_nobody_starts_in_a_room_as_hot_as_the_limit(boston_bundle: Bundle, tmp_path: Path) -> None:
    run = simulate(experiment(boston_bundle, "fleet.room_celsius=43.0", "rounds.horizon_s=3600"), tmp_path / "run")
    assert run.summary["device_rounds"] == 0
    assert (run.devices["ineligible_too_hot"] > 0).all()
    assert run.summary["ineligible"] == {"too_hot": 4}


def test_a_room_without_heat_and_one_that_no_phone_stands_are_refused(boston_bundle: Bundle) -> None:
    with pytest.raises(
        InputError, match=r"fleet\.room_celsius matters only where phones warm: set fleet\.heat to true"
    ):
        experiment(boston_bundle, "fleet.heat=false", "fleet.room_celsius=30.0")
    with pytest.raises(InputError, match="room_celsius should be less than or equal to 50, got 60"):
        experiment(boston_bundle, "fleet.room_celsius=60")


class _KilledError(Exception):
    pass


def test_a_killed_run_goes_on_as_warm_as_it_was(warm: Run, boston_bundle: Bundle, tmp_path: Path) -> None:
    rounds: list[object] = []

    def die_in_the_second_round(kind: str, row: object) -> None:
        if kind == "round":
            rounds.append(row)
        if len(rounds) == 2:
            raise _KilledError

    with pytest.raises(_KilledError):
        simulate(experiment(boston_bundle), tmp_path / "run", observer=die_in_the_second_round)
    # The first round is in a checkpoint, and the next begins at once, on the phones that it warmed.
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    resumed = resume(tmp_path / "run")
    assert resumed.summary["events_sha256"] == warm.summary["events_sha256"]
    assert resumed.devices["held_back_s"].tolist() == warm.devices["held_back_s"].tolist()
