"""What [privacy] takes, and what it refuses with a reason."""

import math
from typing import Any

import pytest
import torch

from pocketfleet.errors import InputError
from pocketfleet.experiment import Experiment
from pocketfleet.privacy_parts import private_run, with_noise_found
from pocketfleet.training.privacy.accountant import Accountant
from pocketfleet.training.update import Update

PRIVATE: dict[str, Any] = {
    "mechanism": "central",
    "max_norm": 1.0,
    "target_epsilon": 4.0,
    "delta": 1e-6,
    "max_participations": 3,
}
REPORT = Update({"w": torch.zeros(2)}, {})
ADAPTIVE: dict[str, Any] = {"clipping": "adaptive", "noise_multiplier": 0.7, "target_epsilon": 0.0}


def experiment(*settings: str, **changed: Any) -> Experiment:  # noqa: ANN401 - of the section
    table = {
        "task": {"name": "boston"},
        "training": {"learning_rate": 0.01},
        "fleet": {"devices": 100},
        "rounds": {"cohort": 10, "count": 20},
        "privacy": {**PRIVATE, **changed},
    }
    return Experiment.from_table(table).with_settings(*settings)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mechanism": "none"}, r'privacy.max_norm is for a privacy.mechanism such as "central", which is "none"'),
        ({"max_norm": 0.0}, r"needs privacy.max_norm, the length that updates are clipped to: set it, such as 1.0"),
        ({"noise_multiplier": 1.0}, r"needs exactly one of privacy.noise_multiplier.*got 1.0 and 4.0"),
        ({"target_epsilon": 0.0}, r"needs exactly one of privacy.noise_multiplier.*got 0.0 and 0.0"),
        ({"delta": 0.0}, r"needs privacy.delta, at which epsilon is stated"),
        ({"delta": 0.01}, r"privacy.delta must be below one over the number of devices, 0.01, got 0.01"),
        ({"count_stddev": 3.0}, r'privacy.count_stddev is for privacy.clipping "adaptive", which is "fixed"'),
        ({"target_quantile": 0.7}, r'privacy.target_quantile is for privacy.clipping "adaptive"'),
        ({"max_participations": 0}, r"privacy.target_epsilon needs privacy.max_participations"),
        ({"max_participations": 1}, r"max_participations 1 of 100 devices are 100 reports.* need 200: raise it"),
        ({"accounting": "guess"}, r"privacy.accounting should be 'participations' or 'poisson', got 'guess'"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        experiment(**changed)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rounds.policy=buffered", r'"central" counts the rounds that a device is in, and a buffer has none'),
        ("aggregation.rule=median", r'aggregation.rule "median" does not keep to: set it to "mean"'),
        ("algorithm.name=scaffold", r'algorithm.name "scaffold" reports variates beside them'),
        ("rounds.selection=oort", r'rounds.selection "oort" may choose by losses: set it to "uniform"'),
        ("release.gate=evaluation", r'release.gate "evaluation" chooses among them by figures of devices'),
    ],
)
def test_what_would_tell_more_than_the_noisy_mean_is_refused(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        experiment(setting)


def test_poisson_needs_no_cap_and_no_noise_no_promise() -> None:
    assert experiment(accounting="poisson", max_participations=0).privacy.noisy
    clipped = experiment(target_epsilon=math.inf, max_participations=0)
    assert not clipped.privacy.noisy
    assert with_noise_found(clipped, REPORT) == clipped


def test_the_noise_is_found_and_takes_the_place_of_the_target() -> None:
    found = with_noise_found(experiment(), REPORT)
    assert found.privacy.target_epsilon == 0.0
    accountant = Accountant(
        accounting="participations", noise_multiplier=found.privacy.noise_multiplier, delta=1e-6, sampling_ratio=0.1
    )
    assert accountant.epsilon(rounds=20, participations=3) == pytest.approx(4.0)
    # What is written down is read again, and stays.
    assert with_noise_found(Experiment.from_toml(found.to_toml()), REPORT) == found
    poisson = with_noise_found(experiment(accounting="poisson"), REPORT)
    accountant = Accountant(
        accounting="poisson", noise_multiplier=poisson.privacy.noise_multiplier, delta=1e-6, sampling_ratio=0.1
    )
    assert accountant.epsilon(rounds=20, participations=0) == pytest.approx(4.0, rel=1e-4)


def test_reports_hold_nothing_without_noise() -> None:
    weights = {"w": torch.zeros(2)}
    with_noise_found(experiment(), Update(weights, {}))
    with pytest.raises(InputError, match=r"devices would report batch-norm statistics beside them: bn.mean; choose"):
        with_noise_found(experiment(), Update(weights, {"bn.mean": torch.zeros(1)}))
    with pytest.raises(InputError, match=r"devices would report what the algorithm adds beside them: more; choose"):
        with_noise_found(experiment(), Update(weights, {}, {"more": torch.zeros(1)}))


def test_an_adaptive_bound_needs_noise_on_the_count() -> None:
    # A twentieth of ten devices is 0.5: room for multipliers below one.
    with_noise_found(experiment(**ADAPTIVE), Update({}, {}))
    with pytest.raises(InputError, match=r"privacy.count_stddev must be above half the noise multiplier, 0.6, got 0.5"):
        with_noise_found(experiment(**ADAPTIVE | {"noise_multiplier": 1.2}), Update({}, {}))
    with_noise_found(experiment(**ADAPTIVE | {"noise_multiplier": 1.2, "count_stddev": 0.7}), Update({}, {}))


def test_without_a_mechanism_there_is_nothing() -> None:
    plain = Experiment.from_table({"task": {"name": "boston"}, "training": {"learning_rate": 0.01}})
    assert private_run(plain, REPORT) is None
    assert with_noise_found(plain, REPORT) == plain
