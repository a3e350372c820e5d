"""A gate between training and phones, in simulations; ``tests/training/server/test_releases.py`` has the service's."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from pocketfleet import Experiment, Run, resume, simulate
from pocketfleet.device_sim.simulator import Simulator
from pocketfleet.errors import InputError
from pocketfleet.export.bundle import Bundle

SETTINGS = (
    "fleet.devices=40",
    "fleet.availability=always",
    "rounds.interval_s=0.0",
    "rounds.cohort=8",
    "rounds.count=6",
    "training.batch_size=8",
    "training.personalised=false",
    "engine.checkpoint_share=1.0",
    "engine.plan=each",
    "engine.processes=1",
)
GATE = (
    "release.gate=evaluation",
    "release.evaluation_reports=6",
    "release.canary_ratio=0.25",
    "release.canary_reports=3",
)
# Every phone reports what it learnt backwards: each version is worse than the one before.
POISON = "fleet.attacks=[{kind='sign_flip', ratio=1.0, scale=3.0}]"


def boston(bundle: Bundle, out: Path, *settings: str) -> Run:
    return simulate(Experiment.load("boston-fleet", [*SETTINGS, f"task.bundle='{bundle.path}'", *settings]), out)


@pytest.fixture(scope="module")
def gated(boston_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return boston(boston_bundle, tmp_path_factory.mktemp("gated") / "run", *GATE)


def test_versions_that_phones_find_better_are_released(gated: Run) -> None:
    history = gated.releases
    assert history.loc[history["state"] == "released", "version"].is_monotonic_increasing
    released = gated.summary["release"]["released_version"]
    assert released >= 4
    # What is released was a candidate first and then the canary, in this order.
    first = history[history["version"] == 1]
    assert first["state"].tolist()[:3] == ["candidate", "canary", "released"]
    assert first["time_s"].is_monotonic_increasing
    # Three phones and more judged it, and found it no worse.
    assert first["evaluations"].tolist()[:3] == [0, 6, 3]
    assert (first["tried"] <= first["released"])[1:3].all()
    # A round's row says what was released when it closed.
    of_rounds = gated.rounds["released_version"]
    assert of_rounds.iloc[0] == 0
    assert of_rounds.is_monotonic_increasing
    assert of_rounds.iloc[-1] > 0
    assert (of_rounds < gated.rounds["model_version"]).all()


def test_a_poisoned_version_is_held_back(boston_bundle: Bundle, tmp_path: Path) -> None:
    run = boston(boston_bundle, tmp_path / "run", *GATE, POISON, "rounds.count=3")
    assert run.summary["release"]["released_version"] == 0
    assert set(run.releases["state"]) <= {"candidate", "held_back", "waiting", "superseded"}
    assert run.summary["release"]["held_back"] >= 1
    assert set(run.rounds["released_version"]) == {0}
    metrics = run.summary["metrics"]
    assert metrics["last"]["test_mse"] > metrics["initial"]["test_mse"]
    # Phones have the model that they had; the run's model is the last that was made.
    untrained = Bundle.load(run.path / "bundle").weights().trainable
    released, made = run.weights(released=True).trainable, run.weights().trainable
    assert all(torch.equal(released[name], untrained[name]) for name in untrained)
    assert not all(torch.equal(made[name], untrained[name]) for name in untrained)
    exported = run.export(tmp_path / "bundle", released=True)
    assert all(torch.equal(exported.weights().trainable[name], untrained[name]) for name in untrained)


def test_a_gate_changes_nothing_of_the_training(boston_bundle: Bundle, gated: Run, tmp_path: Path) -> None:
    plain = boston(boston_bundle, tmp_path / "run")
    assert plain.summary["model_sha256"] == gated.summary["model_sha256"]
    of_gate = gated.events["kind"].isin(["evaluate", "release"])
    assert of_gate.any()
    # Beyond the last round phones still evaluate; no more than that.
    rest = gated.events[~of_gate].drop(columns="sequence").reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, plain.events.drop(columns="sequence"))
    assert "released_version" not in plain.rounds
    assert "release" not in plain.summary
    assert not {"releases.parquet", "released.safetensors"} & {file.name for file in plain.path.iterdir()}
    for call in (lambda: plain.releases, lambda: plain.weights(released=True)):
        with pytest.raises(InputError, match=r"had no gate: run it with release.gate \"evaluation\""):
            call()


def test_what_evaluations_cost_is_in_the_totals(boston_bundle: Bundle, gated: Run, tmp_path: Path) -> None:
    plain = boston(boston_bundle, tmp_path / "run")
    evaluations = gated.events[gated.events["kind"] == "evaluate"]
    assert (evaluations[["seconds", "bytes", "joules"]] > 0).all(axis=None)
    for name, column in (("downlink_bytes", "bytes"), ("metered_bytes", "metered_bytes"), ("energy_joules", "joules")):
        more = gated.summary[name] - plain.summary[name]
        assert more == pytest.approx(evaluations[column].sum())
        assert gated.devices[name].sum() - plain.devices[name].sum() == pytest.approx(evaluations[column].sum())


@pytest.mark.parametrize("calls", [1, 3, 5])
def test_a_broken_run_resumes_to_the_same_releases(
    boston_bundle: Bundle, gated: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    played = Simulator._play_round
    left = [calls]

    def broken(self: Simulator) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        played(self)

    with monkeypatch.context() as patch:
        patch.setattr(Simulator, "_play_round", broken)
        with pytest.raises(KeyboardInterrupt):
            boston(boston_bundle, tmp_path / "run", *GATE)
    run = resume(tmp_path / "run")
    for name in ("model_sha256", "events_sha256", "release", "virtual_seconds"):
        assert run.summary[name] == gated.summary[name]
    pd.testing.assert_frame_equal(run.releases, gated.releases)


def test_phones_that_are_away_evaluate_later(boston_bundle: Bundle, tmp_path: Path) -> None:
    settings = ("fleet.availability=flash-2020", "rounds.count=2", "fleet.devices=200", "release.canary_ratio=0.1")
    run = boston(boston_bundle, tmp_path / "run", *GATE, *settings)
    evaluations = run.events[run.events["kind"] == "evaluate"]
    began_s = evaluations["time_s"] - evaluations["seconds"]
    # Some are asked when the stage begins, others in a later look: they come every quarter of an hour.
    candidate_s = run.releases.loc[run.releases["state"] == "candidate", "time_s"].iloc[0]
    assert ((began_s - candidate_s) >= 900.0 - 1e-6).any()
    assert run.summary["release"]["released_version"] >= 1


def test_a_buffer_has_a_gate_too(boston_bundle: Bundle, tmp_path: Path) -> None:
    run = boston(boston_bundle, tmp_path / "run", *GATE, "rounds.policy=buffered", "rounds.count=4")
    assert run.summary["release"]["released_version"] >= 1


def test_the_task_must_measure_the_metric(boston_bundle: Bundle, tmp_path: Path) -> None:
    run = boston(boston_bundle, tmp_path / "run", *GATE, "rounds.count=2", "release.metric=mse")
    assert run.summary["release"]["released_version"] >= 1
    with pytest.raises(InputError, match=r"release.metric must be one of loss, mse, mae, which task 'boston' measures"):
        boston(boston_bundle, tmp_path / "other", *GATE, "release.metric=a")
