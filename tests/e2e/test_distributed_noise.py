"""Devices that clip and add their share of the noise before a secure sum hides them."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketfleet import Bundle, Experiment, Run, simulate
from pocketfleet.emulation import EmulationPlan, emulate
from pocketfleet.errors import InputError
from pocketfleet.privacy_parts import privacy_plan, secure_plan
from pocketfleet.training.privacy.accountant import epsilon_of_rho
from pocketfleet.training.privacy.distributed_mean import DistributedAccountant, noise_for_sums
from pocketfleet.training.privacy.random_bits import keyed_bits
from pocketfleet.training.privacy.secure_aggregation.fixed_point import FixedPoint
from pocketfleet.training.privacy.secure_aggregation.secure_vector import SecureVector
from pocketfleet.training.update import Update

SETTINGS = [
    "fleet.devices=12",
    "fleet.availability=always",
    'fleet.overrides=[{devices="all", battery_ratio=1.0}]',
    "rounds.count=2",
    "rounds.cohort=8",
    "rounds.interval_s=0.0",
    "engine.plan=each",
    "secure_aggregation.enabled=true",
    "privacy.mechanism=distributed",
    "privacy.max_norm=0.5",
    "privacy.delta=1e-5",
    "privacy.max_participations=2",
]


def private(bundle: Bundle, out: Path, *settings: str) -> Run:
    wanted = ["privacy.target_epsilon=4.0", *settings]
    return simulate(Experiment.load("boston-fleet", [*SETTINGS, f"task.bundle={bundle.path}", *wanted]), out)


def test_a_run_keeps_its_promise_with_masks_and_without(boston_bundle: Bundle, tmp_path: Path) -> None:
    run = private(boston_bundle, tmp_path / "masked")
    told = run.summary["privacy"]
    assert told["mechanism"] == "distributed"
    # Who was in both rounds has spent all of it, and the noise is the least to a thousandth.
    assert 3.95 < told["epsilon"] <= 4.0
    assert run.rounds["epsilon"].is_monotonic_increasing
    assert told["noise_multiplier"] > 0.0
    clear = private(boston_bundle, tmp_path / "clear", "secure_aggregation.masks=false")
    assert clear.summary["model_sha256"] == run.summary["model_sha256"]
    weak = private(boston_bundle, tmp_path / "weak", "privacy.target_epsilon=400.0", "secure_aggregation.masks=false")
    assert weak.summary["privacy"]["noise_multiplier"] < told["noise_multiplier"]
    assert weak.summary["model_sha256"] != run.summary["model_sha256"]


def test_a_sums_noise_is_that_of_all_its_members_and_no_vector_is_longer_than_the_norm() -> None:
    like = Update({"w": torch.zeros(4_000)}, {})
    fixed = FixedPoint(value_range=8.0, bits=20, max_weight=16, cohort=10)
    vector = SecureVector(fixed, like, max_norm=1.0, noise_stddev=0.05)
    far = Update({"w": torch.full((4_000,), 3.0)}, {})
    total = np.zeros(vector.settings().vector_length, vector.settings().dtype)
    for member in range(10):
        bits = keyed_bits(member)("noise", 0)
        total += vector.encode(far, weight=99, shared_seed=1, bits=bits)
    mean = vector.decode(total, shared_seed=1)
    # A member counts once, whatever it says of itself.
    assert mean.weight == 10
    values = mean.update.delta["w"].numpy()
    # Each was clipped to length 1: 1 / sqrt(4000) a coordinate. The noise of ten has a deviation of 0.05 / sqrt(10) in
    # the mean: of 4,000 values the mean is within five standard errors, the deviation within 5 / sqrt(8,000) of it.
    noise = 0.05 / np.sqrt(10)
    assert abs(values.mean() - 1.0 / np.sqrt(4_000)) < 5 * noise / np.sqrt(4_000)
    assert values.std() == pytest.approx(noise, rel=5 / np.sqrt(8_000))


def test_one_that_is_not_finite_adds_noise_alone() -> None:
    like = Update({"w": torch.zeros(50)}, {})
    vector = SecureVector(
        FixedPoint(value_range=8.0, bits=20, max_weight=16, cohort=2), like, max_norm=1.0, noise_stddev=0.01
    )
    broken = Update({"w": torch.full((50,), float("nan"))}, {})
    bits = [keyed_bits(3)("noise", 0) for _ in range(2)]
    pairs = zip((broken, like), bits, strict=True)
    found = [vector.encode(update, weight=1, shared_seed=1, bits=each) for update, each in pairs]
    assert found[0].tolist() == found[1].tolist()


def summed(*settings: str) -> Experiment:
    """Rounds of a hundred, of which sixty may do; a fifth may tell the server what they know."""
    table = {"task": {"name": "boston"}, "training": {"learning_rate": 0.1}, "fleet": {"devices": 200}}
    wanted = ["rounds.cohort=100", "rounds.count=1", "secure_aggregation.enabled=true", "privacy.max_norm=0.5"]
    wanted += ["privacy.mechanism=distributed", "privacy.delta=1e-5", "privacy.noise_multiplier=1.0", *settings]
    return Experiment.from_table(table).with_settings(*wanted)


@pytest.mark.parametrize(
    ("settings", "honest"),
    [
        # Of a hundred a fifth are twenty, and all of them may be among the least sum's sixty.
        ([], 40),
        (["secure_aggregation.corrupt_ratio=0.4"], 20),
        (["rounds.minimum_ratio=1.0"], 80),
        (["rounds.cohort=20"], 8),
        (["rounds.cohort=10"], 4),
        # 0.55 of a hundred is 55, though the product is a little more.
        (["rounds.minimum_ratio=0.55"], 35),
    ],
)
def test_noise_counts_on_the_honest_who_are_sure_to_stay(settings: list[str], honest: int) -> None:
    like = Update({"w": torch.zeros(3_000)}, {})
    plan = secure_plan(summed(*settings), like)
    assert plan is not None
    assert plan.noise_stddev == pytest.approx(0.5 / np.sqrt(honest))
    assert plan.vector.noise is not None
    private = privacy_plan(summed(*settings), like, bits=keyed_bits(1))
    assert private is not None
    assert private.accountant.epsilon(rounds=1, participations=1) == epsilon_of_rho(
        plan.vector.noise.rho(honest), delta=1e-5
    )


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["secure_aggregation.corrupt_ratio=0.6"], "which may be all of the 60 that rounds.minimum_ratio asks for"),
        (["secure_aggregation.bits=32", "privacy.noise_multiplier=10.0"], "steps of the grid wide, at most .* lower"),
        (["privacy.max_norm=1e9"], "steps of the grid wide, at most .* lower .*privacy.max_norm"),
    ],
)
def test_noise_that_cannot_be_is_refused_before_anything_is_exported(settings: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        secure_plan(summed(*settings), Update({"w": torch.zeros(3_000)}, {}))


def test_the_accountant_adds_up_the_sums_that_a_device_was_in() -> None:
    accountant = DistributedAccountant(rho=0.1, delta=1e-6)
    assert accountant.epsilon(rounds=50, participations=0) == 0.0
    assert accountant.epsilon(rounds=50, participations=3) == epsilon_of_rho(3 * 0.1, delta=1e-6)


def test_the_least_noise_for_a_target() -> None:
    # Of a Gaussian: rho = 1 / (2 * z ** 2) of one sum.
    found = noise_for_sums(2.0, participations=4, delta=1e-6, rho_of=lambda z: 0.5 / z**2)
    assert epsilon_of_rho(4 * 0.5 / found**2, delta=1e-6) <= 2.0
    assert epsilon_of_rho(4 * 0.5 / (0.998 * found) ** 2, delta=1e-6) > 2.0
    with pytest.raises(InputError, match="out of reach: raise it"):
        noise_for_sums(2.0, participations=4, delta=1e-6, rho_of=lambda z: 10.0 + 0.0 * z)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["secure_aggregation={}"], 'privacy.mechanism "distributed" with secure_aggregation.enabled false'),
        (["privacy.mechanism=central"], 'privacy.mechanism "central" with secure_aggregation.enabled true'),
        (["privacy.clipping=adaptive"], 'privacy.clipping "adaptive" is for privacy.mechanism "central"'),
        (["privacy.accounting=poisson"], 'privacy.accounting "poisson" is for privacy.mechanism "central"'),
    ],
)
def test_what_does_not_go_together_is_refused(settings: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Experiment.load("boston-fleet", [*SETTINGS, "privacy.target_epsilon=4.0", *settings])


@pytest.mark.long
def test_over_http_the_service_tells_what_was_given_away(boston_bundle: Bundle, tmp_path: Path) -> None:
    settings = ["rounds.count=2", "engine.runtime=onnx", "fleet.program=onnx", f"task.bundle={boston_bundle.path}"]
    settings += ["privacy.mechanism=distributed", "privacy.max_norm=1.0", "privacy.noise_multiplier=0.1"]
    experiment = Experiment.load("boston-two-phones-private", [*settings, "privacy.delta=1e-6"])
    emulate(experiment, EmulationPlan(out=tmp_path / "out", speed=20.0), tell=print)
    with sqlite3.connect(tmp_path / "out" / "state" / "service.sqlite") as database:
        rows = database.execute("SELECT version, clip_norm, participations, epsilon FROM privacy").fetchall()
    database.close()
    run = simulate(experiment, tmp_path / "run")
    assert [row[:3] for row in rows] == [(1, 1.0, 1), (2, 1.0, 2)]
    assert [row[3] for row in rows] == run.rounds["epsilon"].tolist()
