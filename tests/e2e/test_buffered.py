"""Buffered asynchronous runs: as fast as the calculation says, replayed, resumed, and learning."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketfleet import Experiment, Run, resume, simulate
from pocketfleet.errors import InputError
from pocketfleet.export.bundle import Bundle

# Seconds of a whole attempt of each device: 5 s of link and a fixed training time.
ATTEMPT_S = np.repeat([105.0, 205.0, 405.0], [6, 5, 5])
SIXTEEN = """
[task]
name = "boston"
[fleet]
devices = 16
heat = false
memory_moments = false
[training]
steps = 1
batch_size = 8
learning_rate = 0.001
[rounds]
cohort = 16
over_selection = 1.0
deadline_s = 3000.0
[engine]
timing_only = true
[[fleet.overrides]]
devices = "all"
down_bits_per_s = 1e12
up_bits_per_s = 1e12
latency_s = 0.833333
link_losses_per_hour = 0.0
battery_ratio = 1.0
[[fleet.overrides]]
devices = [0, 1, 2, 3, 4, 5]
step_s = 100.0
[[fleet.overrides]]
devices = [6, 7, 8, 9, 10]
step_s = 200.0
[[fleet.overrides]]
devices = [11, 12, 13, 14, 15]
step_s = 400.0
"""
SETTINGS = (
    "engine.checkpoint_share=1.0",
    "fleet.devices=60",
    "fleet.availability=flash-2020",
    "rounds.policy=buffered",
    "rounds.cohort=3",
    "rounds.concurrency=8",
    "rounds.count=12",
    "rounds.interval_s=0.0",
    "eligibility.charging=false",
    "training.epochs=200",
)


def versions_by(time_s: float) -> int:
    """How many reports have come by then, each device beginning again at once."""
    return int(np.floor((time_s + 1e-6) / ATTEMPT_S).sum())


def test_sixteen_devices_take_the_time_that_the_order_of_their_reports_says(
    boston_bundle: Bundle, tmp_path: Path
) -> None:
    experiment = Experiment.from_toml(SIXTEEN, [f"task.bundle={boston_bundle.path}"])
    synchronous = simulate(experiment.with_settings("rounds.count=10"), tmp_path / "synchronous").summary
    buffered = simulate(
        experiment.with_settings(
            "rounds.policy=buffered", "rounds.cohort=1", "rounds.concurrency=16", "rounds.max_staleness=100",
            "rounds.count=160",
        ),
        tmp_path / "buffered",
    )  # fmt: skip
    assert (synchronous["rounds"], buffered.summary["rounds"]) == (10, 160)
    # Each synchronous round waits for the slowest; the 160th report of all comes at one of the devices' multiples.
    moments = np.unique(np.outer(ATTEMPT_S, np.arange(1, 50)))
    expected_s = next(at_s for at_s in moments if versions_by(at_s) >= 160)
    assert expected_s == 1785.0
    assert synchronous["virtual_seconds"] == pytest.approx(10 * ATTEMPT_S.max(), rel=0.02)
    ratio = buffered.summary["virtual_seconds"] / synchronous["virtual_seconds"]
    assert ratio == pytest.approx(expected_s / (10 * ATTEMPT_S.max()), rel=0.1)
    # Of the slow phones' reports each is some forty versions old.
    assert 30 < buffered.rounds["staleness_max"].max() < 50


def run(bundle: Bundle, out: Path, *settings: str) -> Run:
    return simulate(Experiment.load("boston-fleet", [*SETTINGS, f"task.bundle={bundle.path}", *settings]), out)


def hashes(found: Run) -> tuple[str, str]:
    return found.summary["model_sha256"], found.summary["events_sha256"]


@pytest.fixture(scope="module")
def unbroken(boston_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(boston_bundle, tmp_path_factory.mktemp("buffered") / "run")


def test_the_model_learns_of_reports_of_several_versions(unbroken: Run) -> None:
    assert unbroken.summary["rounds"] == 12
    assert (unbroken.rounds["accepted"] == 3).all()
    assert unbroken.rounds["staleness_max"].max() >= 2
    assert unbroken.summary["metrics"]["last"]["test_mse"] < 0.7 * unbroken.summary["metrics"]["initial"]["test_mse"]
    assert (unbroken.events.query("kind == 'close'")["reason"] == "buffer").all()


def test_two_processes_and_the_clock_alone_give_the_same_events(
    boston_bundle: Bundle, unbroken: Run, tmp_path: Path
) -> None:
    assert hashes(run(boston_bundle, tmp_path / "two", "engine.processes=2")) == hashes(unbroken)
    timed = run(boston_bundle, tmp_path / "timed", "engine.timing_only=true")
    assert hashes(timed)[1] == hashes(unbroken)[1]


class KilledError(Exception):
    pass


@pytest.mark.parametrize("rounds", [1, 6])
def test_a_run_that_was_cut_off_goes_on_to_the_same_hashes(
    rounds: int, boston_bundle: Bundle, unbroken: Run, tmp_path: Path
) -> None:
    def kill(stage: str, row: Mapping[str, Any]) -> None:
        if stage == "round" and row["round"] == rounds:
            raise KilledError

    with pytest.raises(KilledError):
        simulate(
            Experiment.load("boston-fleet", [*SETTINGS, f"task.bundle={boston_bundle.path}"]),
            tmp_path / "run",
            observer=kill,
        )
    assert hashes(resume(tmp_path / "run")) == hashes(unbroken)


def test_staleness_is_limited_and_discounted(boston_bundle: Bundle, unbroken: Run, tmp_path: Path) -> None:
    strict = run(boston_bundle, tmp_path / "strict", "rounds.max_staleness=0")
    assert strict.summary["dropouts"]["stale"] > 0
    assert strict.rounds["staleness_max"].max() == 0
    flat = run(boston_bundle, tmp_path / "flat", "rounds.staleness_exponent=0.0")
    # What counts how much is not in the events.
    assert hashes(flat)[1] == hashes(unbroken)[1]
    assert hashes(flat)[0] != hashes(unbroken)[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["rounds.policy=buffered"], r'rounds.interval_s is for rounds.policy "synchronous", .* leave it at 0.0'),
        (["rounds.concurrency=3"], r'rounds.concurrency is for rounds.policy "buffered", which is "synchronous"'),
        (["rounds.policy=eager"], r"rounds.policy should be 'synchronous' or 'buffered', got 'eager'"),
    ],
)
def test_keys_of_the_other_policy_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Experiment.load("boston-fleet", settings)


def test_where_phones_are_scarce_a_slot_that_found_nobody_is_offered_again_before_later_ones(
    boston_bundle: Bundle, tmp_path: Path
) -> None:
    # Some 40 of 500 phones may train at a time, and 30 slots want one: several at once run out of phones.
    settings = (
        "fleet.devices=500", "fleet.availability=flash-2020", "rounds.policy=buffered", "rounds.cohort=10",
        "rounds.concurrency=30", "rounds.count=12", "rounds.interval_s=0.0", "partition.examples_per_device=32",
        "training.epochs=1", "engine.timing_only=true",
    )  # fmt: skip
    experiment = Experiment.load("boston-fleet", [f"task.bundle={boston_bundle.path}", *settings])
    run = simulate(experiment, tmp_path / "scarce")
    assert run.summary["rounds"] == 12
    assigned = run.events[run.events["kind"] == "assign"]
    # No phone has two attempts at once: each begins after the end of its last one.
    ends = run.events[run.events["kind"].isin(("report", "drop"))]
    for device, starts in assigned.groupby("device", observed=True)["time_s"]:
        ended = ends.loc[ends["device"] == device, "time_s"].to_numpy()
        assert np.all(starts.to_numpy()[1:] >= ended[: len(starts) - 1])
    # As many as there are slots, while there are phones for them.
    under_way = (assigned["time_s"].to_numpy()[:, np.newaxis] >= assigned["time_s"].to_numpy()).sum(axis=1) - (
        assigned["time_s"].to_numpy()[:, np.newaxis] >= ends["time_s"].to_numpy()
    ).sum(axis=1)
    assert under_way.max() <= 30
