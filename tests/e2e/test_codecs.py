"""Experiments whose updates and weights travel in few bytes: replayed, continued, and counted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pocketfleet import Bundle, Experiment, Run, resume, simulate
from pocketfleet.device_sim.device_store import DeviceStore
from pocketfleet.training.codec import DownloadCodec, load_codec
from pocketfleet.training.update import Update

SETTINGS = (
    "fleet.devices=12",
    "rounds.count=4",
    "rounds.cohort=5",
    "rounds.interval_s=7200",
    "training.epochs=1",
    "partition.kind=iid",
    "partition.examples_per_device=20",
    "training.batch_size=8",
    "engine.plan=each",
    "engine.checkpoint_share=1.0",
    "codec.name=rotation+random_k+quantised",
    "codec.bits=4",
    "codec.ratio=0.2",
    "codec.error_feedback=true",
    "codec.download_bits=8",
)


def experiment(bundle: Bundle, *settings: str) -> Experiment:
    return Experiment.load("boston-fleet", [*SETTINGS, f"task.bundle={bundle.path}", *settings])


def hashes(run: Run) -> tuple[str, str]:
    return run.summary["model_sha256"], run.summary["events_sha256"]


@pytest.fixture(scope="module")
def encoded(boston_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return simulate(experiment(boston_bundle), tmp_path_factory.mktemp("encoded") / "run")


def test_two_processes_give_the_hashes_of_one(boston_bundle: Bundle, encoded: Run, tmp_path: Path) -> None:
    run = simulate(experiment(boston_bundle, "engine.processes=2"), tmp_path / "run")
    assert hashes(run) == hashes(encoded)


def test_a_continued_run_gives_the_hashes_of_a_whole_one(boston_bundle: Bundle, encoded: Run, tmp_path: Path) -> None:
    def stop(stage: str, row: Mapping[str, Any]) -> None:
        if stage == "round" and row["round"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(experiment(boston_bundle), tmp_path / "run", observer=stop)
    assert hashes(resume(tmp_path / "run")) == hashes(encoded)


def test_bytes_are_those_of_the_codec(boston_bundle: Bundle, encoded: Run) -> None:
    weights = boston_bundle.weights()
    codec = load_codec("rotation+random_k+quantised", {"bits": 4, "ratio": 0.2, "error_feedback": True})
    events = encoded.events
    assert set(events[events["kind"] == "upload"]["bytes"]) == {codec.encoded_bytes(Update(weights.trainable, {}))}
    down = DownloadCodec(frozenset(weights.trainable), bits=8).encoded_bytes(weights)
    once = boston_bundle.download_bytes("executorch")
    assert set(events[events["kind"] == "download"]["bytes"]) == {down, down + once}


def test_devices_keep_what_their_updates_did_not_say(boston_bundle: Bundle, encoded: Run) -> None:
    store = DeviceStore.opened(next(encoded.path.rglob("index.npy")).parent)
    took_part = (store.index[:, 0] >= 0).nonzero()[0]
    assert len(took_part) > 0
    start = {f"residual/{name}": value * 0 for name, value in boston_bundle.weights().trainable.items()}
    residual = store.states(took_part, start)
    assert all((value.flatten(1).abs().sum(dim=1) > 0).all() for value in residual.values() if value[0].numel() > 1)


def test_an_algorithm_with_a_state_of_its_own_does_not_see_them(scaffold_bundle: Bundle, tmp_path: Path) -> None:
    runs = [
        simulate(
            experiment(scaffold_bundle, "algorithm.name=scaffold", f"engine.plan={plan}", "rounds.count=3"),
            tmp_path / plan,
        )
        for plan in ("each", "batched")
    ]
    assert runs[0].summary["reports_accepted"] == runs[1].summary["reports_accepted"] > 0
