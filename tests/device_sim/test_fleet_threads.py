"""Phones that train on more than one thread: seconds and watts as worked out by hand."""

import numpy as np
import pytest

from pocketfleet.assembly import Parts, workload
from pocketfleet.device_sim.compute import program_seconds
from pocketfleet.device_sim.efficiency import ClassCost, Efficiency, Profile
from pocketfleet.device_sim.fleet import DeviceOverride, Fleet, build_fleet
from pocketfleet.device_sim.phone import find_phone
from pocketfleet.errors import InputError
from pocketfleet.experiment import Experiment
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.footprint import Operator

# Pixel 8: one core of 24 x 2.914 = 69.936 GFLOP/s, four of 16 x 2.367 = 37.872, four of 9 x 1.704 = 15.336.
BIG, MIDDLE, LITTLE = 69.936, 37.872, 15.336
# All threads count in full, so that hand and program can be compared.
PLAIN = Efficiency(
    runtime="executorch",
    classes={"matmul": ClassCost(efficiency=0.5, byte_s=0.0), "elementwise": ClassCost(efficiency=0.5, byte_s=0.0)},
    dispatch_s=0.0,
    fixed_s=0.0,
    parallel_ratio=1.0,
    core_peak_flops=100e9,
)
MATMUL = Operator(name="mm", kind="matmul", flops=1e9, bytes=8.0)
SUM = Operator(name="add", kind="other", flops=1e9, bytes=8.0)


def pixels(threads: int, *, ratio: float = 1.0) -> Fleet:
    override = DeviceOverride(devices="all", peak_flops_ratio=ratio)
    return build_fleet(devices=2, seed=1, phones=("Pixel 8",) * 2, threads=threads, overrides=[override])


def seconds(fleet: Fleet, operator: Operator) -> np.ndarray:
    return program_seconds(
        [operator],
        profile=Profile(where="here", efficiencies={("executorch", "any"): PLAIN}),
        runtime="executorch",
        phones=fleet.phone_name,
        peak_flops=fleet.peak_flops,
        memory_bytes_per_s=fleet.memory_bytes_per_s,
        parallel_peak_flops=fleet.parallel_peak_flops,
    )


@pytest.mark.parametrize("ratio", [1.0, 0.25])
def test_seconds_of_four_threads_by_hand(ratio: float) -> None:
    one, four = (seconds(pixels(threads, ratio=ratio), MATMUL) for threads in (1, 4))
    # Four threads are on the big core and three middling ones, and wait for the latter: 4 x 37.872 = 151.488 GFLOP/s
    # beside one thread's measured 69.775.
    np.testing.assert_allclose(one / four, 4 * MIDDLE / 69.775)


def test_little_cores_slow_all_threads_down() -> None:
    five, nine = (seconds(pixels(threads), MATMUL) for threads in (5, 9))
    # The sixth to ninth thread are on little cores: 9 x 15.336 = 138.024 against 5 x 37.872 = 189.36.
    np.testing.assert_allclose(nine / five, 5 * MIDDLE / (9 * LITTLE))


def test_what_is_no_product_gains_nothing() -> None:
    np.testing.assert_array_equal(seconds(pixels(1), SUM), seconds(pixels(4), SUM))


def test_watts_of_four_threads_by_hand() -> None:
    pixel = find_phone("Pixel 8")
    # Three middling cores joined, of the eight beside the first.
    share = 3 * MIDDLE / (4 * MIDDLE + 4 * LITTLE)
    expected = pixel.compute_watts + (pixel.compute_watts_all_cores - pixel.compute_watts) * share
    np.testing.assert_allclose(pixels(4).compute_watts, expected)
    assert expected > 1.5 * pixel.compute_watts


def test_more_threads_than_cores_add_nothing() -> None:
    nine, sixteen = pixels(9), pixels(16)
    np.testing.assert_array_equal(nine.parallel_peak_flops, sixteen.parallel_peak_flops)
    np.testing.assert_array_equal(nine.compute_watts, sixteen.compute_watts)


def test_an_experiments_threads_reach_steps_and_watts(mnist_bundle: Bundle) -> None:
    base = Experiment.load("mnist-fleet", ["fleet.devices=3", "rounds.cohort=2", 'fleet.mix="global-2024"'])
    made = {}
    for threads in (1, 4):
        experiment = base.with_settings(f"fleet.threads={threads}", 'fleet.program="onnx"')
        parts = Parts.of(experiment, mnist_bundle.path)
        made[threads] = workload(experiment, parts, mnist_bundle).step_s, parts.fleet.compute_watts
    assert np.all(made[4][0] < made[1][0])
    assert np.all(made[4][1] > made[1][1])


@pytest.mark.parametrize("threads", [0, 17])
def test_threads_out_of_bounds(threads: int) -> None:
    with pytest.raises(InputError, match=r"fleet\.threads should be .* than or equal to"):
        Experiment.load("mnist-fleet", [f"fleet.threads={threads}"])
