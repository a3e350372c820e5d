"""A private run from the experiment to the tables: clipped, noised, counted, and on after a break."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pocketfleet import Experiment, Run, resume, simulate
from pocketfleet.assembly import Parts
from pocketfleet.device_sim.page import page
from pocketfleet.errors import InputError, TrainingDivergedError
from pocketfleet.export.bundle import Bundle
from pocketfleet.training.privacy.accountant import Accountant
from pocketfleet.training.privacy.random_bits import keyed_bits, normals

SETTINGS = (
    "engine.checkpoint_share=1.0",
    "engine.plan=each",
    "fleet.devices=30",
    "fleet.availability=always",
    "partition.examples_per_device=20",
    "training.batch_size=8",
    "rounds.cohort=4",
    "rounds.count=4",
    "privacy.mechanism=central",
    "privacy.max_norm=0.05",
    "privacy.delta=1e-5",
    "privacy.max_participations=1",
)
NOISY = ("privacy.noise_multiplier=0.3",)
ADAPTIVE = (*NOISY, "privacy.clipping=adaptive", "privacy.count_stddev=1.0")


def experiment(bundle: Bundle, *settings: str) -> Experiment:
    return Experiment.load("boston-fleet", [*SETTINGS, f"task.bundle='{bundle.path}'", *settings])


def hashes(run: Run) -> tuple[str, str]:
    return run.summary["model_sha256"], run.summary["events_sha256"]


@pytest.fixture(scope="module")
def whole(boston_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return simulate(experiment(boston_bundle, *ADAPTIVE), tmp_path_factory.mktemp("whole") / "run")


def test_a_private_run_that_was_broken_off_goes_on_to_the_same_hashes(
    boston_bundle: Bundle, whole: Run, tmp_path: Path
) -> None:
    class BreakError(Exception): ...

    def observer(stage: str, row: object) -> None:
        if stage == "round" and row["round"] == 2:  # type: ignore[index]
            raise BreakError

    with pytest.raises(BreakError):
        simulate(experiment(boston_bundle, *ADAPTIVE), tmp_path / "run", observer=observer)
    run = resume(tmp_path / "run")
    assert hashes(run) == hashes(whole)
    columns = ["round", "epsilon", "clip_norm", "refused"]
    assert run.rounds[columns].equals(whole.rounds[columns])
    # The bound moved, and it is the server's state that moved it.
    assert whole.rounds["clip_norm"].nunique() == len(whole.rounds) > 2


def test_two_processes_draw_the_same_noise(boston_bundle: Bundle, whole: Run, tmp_path: Path) -> None:
    run = simulate(experiment(boston_bundle, *ADAPTIVE, "engine.processes=2"), tmp_path / "run")
    assert hashes(run) == hashes(whole)


def test_no_device_is_in_more_models_than_it_may_be(whole: Run) -> None:
    assert whole.devices["accepted"].max() == 1
    assert int((whole.devices["accepted"] == 1).sum()) == 16
    assert whole.rounds["refused"].sum() > 0
    # Always there and all at once: whoever is spent is told so, once.
    assert int(whole.rounds["refused"].sum()) <= 16


def test_noise_that_ends_training_is_named(boston_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingDivergedError, match=r"the noise is too much for the model, or the rate: .*privacy\.max_norm"
    ):
        simulate(experiment(boston_bundle, "privacy.noise_multiplier=1e30"), tmp_path / "run")


def test_a_run_ends_when_too_few_may_still_be_in_a_model(boston_bundle: Bundle, tmp_path: Path) -> None:
    # Three phones, in two models each, are enough for three models of two; but the same two come first twice.
    small = ("fleet.devices=3", "rounds.cohort=2", "rounds.count=3", "privacy.max_participations=2")
    small += ("rounds.over_selection=1.0", "rounds.minimum_ratio=1.0", "rounds.interval_s=0.0")
    run = simulate(experiment(boston_bundle, *NOISY, *small, "engine.timing_only=true"), tmp_path / "run")
    assert (run.summary["ended"], run.summary["rounds"], run.summary["rounds_abandoned"]) == ("privacy_spent", 2, 0)
    times = run.events[run.events["reason"] == "accepted"]["device"].value_counts()
    assert run.summary["devices_spent"] == int((times == 2).sum()) == 2
    assert "it ended when fewer phones than a round needs could still be in a model" in page(run)
    # It stays at that.
    assert resume(run.path).summary == run.summary


def test_tables_summary_and_page_say_what_it_costs(whole: Run) -> None:
    accountant = Accountant(accounting="participations", noise_multiplier=0.3, delta=1e-5)
    expected = accountant.epsilon(rounds=4, participations=1)
    assert whole.rounds["epsilon"].tolist() == [expected] * 4
    assert whole.summary["privacy"] == {
        "epsilon": expected,
        "clip_norm": float(whole.rounds["clip_norm"].iloc[-1]),
        "mechanism": "central",
        "delta": 1e-5,
        "accounting": "participations",
        "noise_multiplier": 0.3,
        "clipping": "adaptive",
        "max_participations": 1,
    }
    text = page(whole)
    assert "<h2>Privacy</h2>" in text
    assert f'data-figure="privacy_epsilon" value="{expected!r}"' in text


def test_the_noise_is_what_was_drawn_for_the_version(boston_bundle: Bundle, tmp_path: Path) -> None:
    clipped, noisy = (
        simulate(experiment(boston_bundle, "rounds.count=1", of), tmp_path / name).weights().trainable
        for name, of in (("clipped", "privacy.target_epsilon=inf"), ("noisy", NOISY[0]))
    )
    names = sorted(clipped)
    found = torch.cat([(noisy[name].double() - clipped[name].double()).ravel() for name in names]).numpy()
    # Noise of 0.3 * 0.05 on the sum of four; weights are float32, of 1e-7 of their own size.
    expected = normals(keyed_bits(1)("privacy_noise", 1), len(found)) * 0.3 * 0.05 / 4
    np.testing.assert_allclose(found, expected, atol=3e-7)
    assert float(np.abs(expected).max()) > 1e-3


def test_clipping_alone_holds_every_model_to_its_bound(boston_bundle: Bundle, tmp_path: Path) -> None:
    run = simulate(experiment(boston_bundle, "privacy.target_epsilon=inf"), tmp_path / "run")
    start, end = Parts.of(experiment(boston_bundle, *NOISY), None).weights.trainable, run.weights().trainable
    moved = sum(float((end[name].double() - start[name].double()).square().sum()) for name in start) ** 0.5
    # Four means of updates of 0.05 at most; the fleet's updates are longer, and point alike.
    assert 0.1 < moved <= 4 * 0.05 + 1e-6
    assert run.summary["privacy"]["epsilon"] is None
    assert np.isinf(run.rounds["epsilon"]).all()
    assert "nothing is promised to any phone" in page(run)


def test_a_target_is_written_down_as_the_noise_it_takes(boston_bundle: Bundle, tmp_path: Path) -> None:
    told: list[float] = []
    run = simulate(
        experiment(boston_bundle, "privacy.target_epsilon=6.0"),
        tmp_path / "run",
        observer=lambda stage, row: told.append(row["epsilon"]) if stage == "round" else None,
    )
    assert run.summary["privacy"]["epsilon"] == pytest.approx(6.0)
    assert told == pytest.approx([6.0] * 4)
    written = Experiment.load(tmp_path / "run" / "experiment.toml").privacy
    assert (written.target_epsilon, written.noise_multiplier) == (0.0, run.summary["privacy"]["noise_multiplier"])


def test_by_the_clock_alone_the_same_devices_are_spent(boston_bundle: Bundle, whole: Run, tmp_path: Path) -> None:
    run = simulate(experiment(boston_bundle, *ADAPTIVE, "engine.timing_only=true"), tmp_path / "run")
    assert run.summary["events_sha256"] == whole.summary["events_sha256"]
    assert "privacy" not in run.summary


def test_batch_norm_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "normed.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "from pocketfleet.training.examples import Examples\n"
        "class Normed:\n"
        "    name = 'normed'\n"
        "    def make_model(self):\n"
        "        return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))\n"
        "    def loss(self, output, target):\n"
        "        return (output - target).square().mean(dim=1)\n"
        "    def metrics(self, output, target):\n"
        "        return {'mse': (output - target).square().mean(dim=1)}\n"
        "    def train_examples(self):\n"
        "        return Examples(torch.randn(600, 2), torch.randn(600, 1))\n"
        "    def test_examples(self):\n"
        "        return Examples(torch.randn(20, 2), torch.randn(20, 1))\n"
        "def make_task():\n"
        "    return Normed()\n"
    )
    monkeypatch.chdir(tmp_path)
    private = Experiment.load("boston-fleet", [*SETTINGS, *NOISY, "task.name=normed:make_task"])
    with pytest.raises(InputError, match=r"would report batch-norm statistics beside them: 1\.num_batches_tracked"):
        simulate(private, tmp_path / "run")
    assert not (tmp_path / "run").exists()
