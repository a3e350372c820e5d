"""Attackers of a fleet and rules against them, from the experiment to the tables."""

import sys
from pathlib import Path

import pytest

from pocketfleet import Experiment, Run, simulate
from pocketfleet.errors import InputError
from pocketfleet.export.bundle import Bundle

sys.path.append(str(Path(__file__).parents[2]))
from benchmarks.attackers import MEAN_AT_MOST, RULES, accuracies, failures, table_of

BOSTON = (
    "fleet.devices=12",
    "fleet.availability=always",
    "rounds.interval_s=0.0",
    "rounds.cohort=8",
    "rounds.over_selection=1.0",
    "rounds.count=3",
    "training.batch_size=8",
    "training.personalised=false",
    # A probe might choose another way for one run than for the next.
    "engine.plan=each",
    "engine.processes=1",
)


def boston(bundle: Bundle, out: Path, *settings: str) -> Run:
    return simulate(Experiment.load("boston-fleet", [*BOSTON, f"task.bundle='{bundle.path}'", *settings]), out)


def digits(bundle: Bundle, out: Path, *settings: str) -> float:
    """Accuracy after four rounds of ten phones on 400 digits each; phones 1 and 6 may be told to attack."""
    experiment = Experiment.load(
        "mnist-fleet",
        [
            "partition.kind=iid",
            "fleet.devices=10",
            "rounds.cohort=10",
            "rounds.over_selection=1.0",
            "rounds.count=4",
            "rounds.evaluate_every=4",
            "training.epochs=1",
            "training.personalised=false",
            "engine.plan=each_channels_last",
            "engine.processes=1",
            f"task.bundle='{bundle.path}'",
            *settings,
        ],
    )
    return float(simulate(experiment, out).summary["metrics"]["last"]["test_accuracy"])


def test_two_of_ten_stop_the_mean_but_not_the_median(mnist_bundle: Bundle, tmp_path: Path) -> None:
    attack = "fleet.attacks=[{kind='sign_flip', devices=[1, 6], scale=5.0}]"
    calm = digits(mnist_bundle, tmp_path / "calm")
    harmed = digits(mnist_bundle, tmp_path / "harmed", attack)
    held = digits(mnist_bundle, tmp_path / "held", attack, "aggregation.rule=median")
    assert harmed < MEAN_AT_MOST < calm - 0.1
    assert held > calm - 0.1


@pytest.mark.long
def test_two_rules_hold_against_a_fifth_of_the_fleet(mnist_bundle: Bundle, tmp_path: Path) -> None:
    rows = accuracies(["none", "sign_flip"], seeds=[1, 2, 3], rounds=16, folder=tmp_path, bundle=str(mnist_bundle.path))
    table = table_of(rows)
    assert set(table.index) == set(RULES)
    assert failures(table) == [], table.to_string()


@pytest.mark.parametrize("rule", ["rule=norm_bounded max_norm=0.5", "rule=multi_krum byzantine=2"])
def test_one_process_or_two_give_the_same_model(boston_bundle: Bundle, tmp_path: Path, rule: str) -> None:
    settings = [
        "fleet.attacks=[{kind='sign_flip', ratio=0.2, scale=5.0}]",
        *(f"aggregation.{setting}" for setting in rule.split()),
    ]
    runs = [
        boston(boston_bundle, tmp_path / processes, *settings, f"engine.processes={processes}")
        for processes in ("1", "2")
    ]
    assert runs[0].summary["model_sha256"] == runs[1].summary["model_sha256"]
    plain = boston(boston_bundle, tmp_path / "mean", settings[0])
    assert plain.summary["model_sha256"] != runs[0].summary["model_sha256"]
    # Attackers and rules are no part of the phones' day.
    assert plain.summary["events_sha256"] == runs[0].summary["events_sha256"]
    # Nothing of the rows is left behind.
    assert {path.name for path in runs[0].path.iterdir()} == {path.name for path in plain.path.iterdir()}


def test_each_devices_part_is_in_its_row(boston_bundle: Bundle, tmp_path: Path) -> None:
    attacks = "fleet.attacks=[{kind='nan', devices=[0, 7]}, {kind='scaled', ratio=0.4, scale=2.0}]"
    parts = boston(boston_bundle, tmp_path / "run", attacks).devices["attack"].tolist()
    assert (parts[0], parts[7]) == ("nan", "nan")
    assert set(parts) == {"nan", "scaled", ""}


def test_an_honest_fleet_says_so(boston_bundle: Bundle, tmp_path: Path) -> None:
    assert set(boston(boston_bundle, tmp_path / "run").devices["attack"]) == {""}


@pytest.mark.parametrize("rule", ["rule=mean", "rule=trimmed_mean trim_ratio=0.2"])
def test_updates_that_are_no_numbers_are_left_out_and_counted(boston_bundle: Bundle, tmp_path: Path, rule: str) -> None:
    run = boston(
        boston_bundle,
        tmp_path / "run",
        "rounds.cohort=12",
        "fleet.attacks=[{kind='nan', devices=[0, 7]}]",
        *(f"aggregation.{setting}" for setting in rule.split()),
    )
    took_part = run.devices.loc[[0, 7], "accepted"].sum()
    assert run.summary["non_finite_updates"] == took_part > 0
    assert run.rounds["test_mse"].notna().all()


@pytest.mark.parametrize("plan", ["batched", "each"])
def test_what_scaffold_reports_beside_the_delta_arrives(scaffold_bundle: Bundle, tmp_path: Path, plan: str) -> None:
    settings = ["algorithm.name=scaffold", "rounds.count=2", "rounds.cohort=12", f"engine.plan={plan}"]
    honest = boston(scaffold_bundle, tmp_path / "honest", *settings)
    attacked = boston(
        scaffold_bundle, tmp_path / "attacked", *settings, "fleet.attacks=[{kind='sign_flip', devices=[3]}]"
    )
    assert attacked.devices.loc[3, "accepted"] == 2
    assert attacked.summary["non_finite_updates"] == 0
    # One delta of twelve backwards: the model still learns, and another one.
    mse = [run.summary["metrics"]["last"]["test_mse"] for run in (honest, attacked)]
    assert mse[0] < mse[1] < attacked.summary["metrics"]["initial"]["test_mse"]


def test_a_flipped_label_changes_what_is_learnt_and_not_what_is_measured(mnist_bundle: Bundle, tmp_path: Path) -> None:
    flip = "fleet.attacks=[{kind='label_flip', ratio=1.0}]"
    # All learn to call a 0 a 9, and so on: no digit is its own mirror.
    assert digits(mnist_bundle, tmp_path / "run", flip) < 0.1


def test_a_buffer_is_combined_by_the_rule_too(boston_bundle: Bundle, tmp_path: Path) -> None:
    settings = ["rounds.policy=buffered", "rounds.concurrency=10", "aggregation.rule=median"]
    run = boston(boston_bundle, tmp_path / "run", *settings)
    assert run.summary["rounds"] == 3


def test_labels_that_are_no_classes_cannot_be_flipped(boston_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"label_flip needs targets that are classes .* 'boston' are float32: choose"):
        boston(boston_bundle, tmp_path / "run", "fleet.attacks=[{kind='label_flip', ratio=0.2}]")
    assert not (tmp_path / "run").exists()
