"""More phones: 100 of them with skewed digits train LeNet-5."""

from pathlib import Path

import pytest

from pocketfleet import Bundle, Experiment, simulate


# One seed is a sample: each takes a minute or two.
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_a_hundred_phones_learn_digits(seed: int, mnist_bundle: Bundle, tmp_path: Path, capsys) -> None:
    experiment = Experiment.load(
        "mnist-fleet", ["fleet.devices=100", f"seed={seed}", f"task.bundle={mnist_bundle.path}"]
    )
    # What the figure is stated for.
    assert experiment.partition.kind == "dirichlet"
    assert experiment.partition.alpha == 0.3
    assert (experiment.rounds.cohort, experiment.rounds.count, experiment.training.epochs) == (50, 30, 5)
    assert (experiment.training.learning_rate, experiment.training.momentum) == (0.05, 0.9)
    assert experiment.fleet.availability == "always"
    run = simulate(experiment, tmp_path / "run")
    accuracy = run.summary["metrics"]["mean_of_last_five"]["test_accuracy"]
    with capsys.disabled():
        print(f"\nseed {seed}: mean accuracy of the last five rounds {accuracy:.4f}", end="")
    assert run.summary["rounds"] == 30
    assert accuracy >= 0.94
