"""A simulation whose cohorts are trained by Ray gives the hashes of one on this machine's processes."""

import sys
from pathlib import Path

import pytest

from pocketfleet import Bundle, Experiment, Run, resume, simulate
from pocketfleet.errors import InputError

SETTINGS = (
    "engine.checkpoint_share=1.0",
    "fleet.availability=always",
    "fleet.devices=40",
    "rounds.count=3",
    "rounds.cohort=8",
    "rounds.interval_s=0.0",
    "training.batch_size=8",
)


def run(bundle: Bundle, out: Path, *settings: str) -> Run:
    experiment = Experiment.load("boston-fleet", [*SETTINGS, f"task.bundle='{bundle.path}'", *settings])
    return simulate(experiment, out)


# Also with the programs of the bundle, whose files travel, and with an algorithm whose devices keep something: the
# chunks of a cohort of eight are two. The programs are the sample: they need most of the machine that trains.
@pytest.mark.parametrize(
    ("bundle", "settings"),
    [
        pytest.param("boston_bundle", ["engine.plan=batched"], marks=pytest.mark.long),
        ("boston_bundle", ["engine.runtime=executorch"]),
        pytest.param(
            "scaffold_bundle",
            ["engine.plan=batched", "engine.chunk=4", "algorithm.name=scaffold"],
            marks=pytest.mark.long,
        ),
    ],
    ids=["batched", "executorch", "scaffold"],
)
def test_ray_gives_the_hashes_of_this_machine(
    bundle: str, settings: list[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    given = request.getfixturevalue(bundle)
    local = run(given, tmp_path / "local", *settings)
    ray = run(given, tmp_path / "ray", *settings, "engine.backend=ray", "engine.processes=2")
    for name in ("model_sha256", "events_sha256", "metrics", "personalisation", "rounds"):
        assert ray.summary[name] == local.summary[name]
    assert local.summary["rounds"] == 3
    assert ray.updates.equals(local.updates)


def test_a_run_moves_between_the_cluster_and_this_machine(boston_bundle: Bundle, tmp_path: Path) -> None:
    whole = run(boston_bundle, tmp_path / "whole", "engine.plan=each")

    class Stopped(Exception):  # noqa: N818 - nothing is wrong
        pass

    def stop(stage: str, row: object) -> None:
        if stage == "round":
            raise Stopped

    started = Experiment.load(
        "boston-fleet",
        [*SETTINGS, f"task.bundle='{boston_bundle.path}'", "engine.plan=each", "engine.backend=ray"],
    )
    with pytest.raises(Stopped):
        simulate(started, tmp_path / "moved", observer=stop)
    moved = resume(tmp_path / "moved", ["engine.backend=processes"])
    for name in ("model_sha256", "events_sha256"):
        assert moved.summary[name] == whole.summary[name]


def test_without_the_extra_the_message_names_it(
    boston_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the import system says of a module that is not there.
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"ray is not installed: pip install 'pocketfleet\[cluster\]'"):
        run(boston_bundle, tmp_path / "run", "engine.backend=ray")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "pattern"),
    [
        (["engine.address=auto"], r'engine\.address is for engine\.backend "ray"'),
        (["engine.backend=ray", "engine.address='ray://h:1'"], r'engine\.address must be "auto" or host:port'),
        (["engine.backend=ray", "engine.device=cuda"], r'engine\.backend "ray" computes on CPUs'),
    ],
)
def test_settings_that_do_not_fit(settings: list[str], pattern: str) -> None:
    with pytest.raises(InputError, match=pattern):
        Experiment.load("boston-fleet", settings)
