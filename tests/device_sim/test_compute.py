import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.device_sim.compute import (
    program_seconds,
    shared_peak_flops,
    step_seconds,
)
from pocketfleet.device_sim.efficiency import ClassCost, Efficiency, Profile, load_profile
from pocketfleet.device_sim.operator_class import CLASSES
from pocketfleet.device_sim.phone import find_phone, load_phones
from pocketfleet.errors import InputError
from pocketfleet.export.footprint import Operator

# A host of 100 GFLOP/s; matmul at half of peak, convolution at a tenth, arithmetic at a hundredth, copies 1 ns a byte.
PLAIN = Efficiency(
    runtime="plain",
    classes={
        "matmul": ClassCost(efficiency=0.5, byte_s=0.0),
        "convolution": ClassCost(efficiency=0.1, byte_s=0.0),
        "elementwise": ClassCost(efficiency=0.01, byte_s=0.0),
        "copy": ClassCost(efficiency=1.0, byte_s=1e-9),
        "loop": ClassCost(efficiency=1.0, byte_s=0.0, dispatch_s=1e-3),
    },
    dispatch_s=1e-6,
    fixed_s=1e-4,
    parallel_ratio=0.5,
    core_peak_flops=100e9,
)
PEAK = np.array([100e9, 25e9])
BANDWIDTH = np.array([10e9, 5e9])


def seconds(
    kind: list[str], flops: list[float], bytes: list[float], *, parallel_peak_flops: np.ndarray | None = None
) -> np.ndarray:
    return step_seconds(
        kind=kind,
        flops=flops,
        bytes=bytes,
        peak_flops=PEAK,
        memory_bytes_per_s=BANDWIDTH,
        efficiency=PLAIN,
        parallel_peak_flops=parallel_peak_flops,
    )


def test_an_empty_program_costs_the_fixed_part() -> None:
    # 100 us on the host's equal; sqrt(100 / 25) = 2 times that on a core of a quarter of its peak.
    np.testing.assert_allclose(seconds([], [], []), [1e-4, 2e-4])


def test_compute_bound_memory_bound_and_overheads_add_up() -> None:
    # matmul of 1e9 FLOP: 1e9 / (100e9 * 0.5) = 20 ms and 80 ms; its 1e6 bytes take 0.1 and 0.2 ms: compute bound.
    # arithmetic of 1e6 FLOP: 1e6 / (100e9 * 0.01) = 1 ms and 4 ms; its 1e9 bytes take 100 and 200 ms: memory bound.
    # Overheads: 100 us + 2 x 1 us, and twice that on the slower.
    expected = [0.020 + 0.100 + 1.02e-4, 0.080 + 0.200 + 2.04e-4]
    np.testing.assert_allclose(seconds(["matmul", "elementwise"], [1e9, 1e6], [1e6, 1e9]), expected)


def test_bytes_have_a_roof_of_the_core_too() -> None:
    # 1e6 bytes at 1 ns: 1 ms, and 2 ms on the slower core; from memory they would take 0.1 and 0.2 ms.
    np.testing.assert_allclose(seconds(["copy"], [0.0], [1e6]), [1e-4 + 1e-6 + 1e-3, 2e-4 + 2e-6 + 2e-3])


def test_a_class_may_have_a_dispatch_of_its_own() -> None:
    # Three times 1 ms, and 2 ms on the slower core.
    np.testing.assert_allclose(seconds(["loop"] * 3, [0.0] * 3, [0.0] * 3), [1e-4 + 3e-3, 2e-4 + 6e-3])


def test_a_convolution_has_its_own_efficiency() -> None:
    # 1e9 / (100e9 * 0.1) = 100 ms against the matmul's 20 ms; no bytes.
    difference = seconds(["convolution"], [1e9], [0]) - seconds(["matmul"], [1e9], [0])
    np.testing.assert_allclose(difference, [0.080, 0.320])


def test_more_threads_make_products_faster_and_nothing_else() -> None:
    # Twice the peak, of which a half is reached: 1.5 times as fast.
    one, two = (seconds(["matmul"], [1e9], [0], parallel_peak_flops=PEAK * times) for times in (1, 2))
    fixed = seconds([], [], []) + np.array([1e-6, 2e-6])
    np.testing.assert_allclose(one - fixed, (two - fixed) * 1.5)
    for kind in ("elementwise", "copy"):
        same = [seconds([kind], [1e6], [1e6], parallel_peak_flops=PEAK * times) for times in (1, 2)]
        np.testing.assert_array_equal(*same)


@given(st.lists(st.tuples(st.sampled_from(list(PLAIN.classes)), st.integers(0, 3), st.integers(0, 3)), max_size=12))
def test_a_step_is_the_sum_of_its_operators(operators: list[tuple[str, int, int]]) -> None:
    fixed = seconds([], [], [])
    one_by_one = fixed.copy()
    for kind, flops, bytes in operators:
        one_by_one += seconds([kind], [flops * 1e8], [bytes * 1e7]) - fixed
    kinds = [kind for kind, _, _ in operators]
    together = seconds(kinds, [flops * 1e8 for _, flops, _ in operators], [bytes * 1e7 for _, _, bytes in operators])
    np.testing.assert_allclose(together, one_by_one, rtol=1e-9)


def test_unknown_classes_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one of matmul, convolution, elementwise, copy, loop, got 'attention'"):
        seconds(["attention"], [1.0], [1.0])
    with pytest.raises(ValueError, match="shorter"):
        seconds(["matmul", "matmul"], [1.0], [1.0])


@pytest.mark.parametrize("runtime", ["executorch", "onnx"])
def test_measured_efficiencies_are_ratios(runtime: str) -> None:
    efficiency = load_profile().efficiency(runtime)
    assert efficiency.runtime == runtime
    assert set(efficiency.classes) == set(CLASSES)
    for name in CLASSES:
        assert 0.0 < efficiency.ratio(name) <= 1.0
    # Stock kernels: matrix products are what runtimes are best at.
    assert efficiency.ratio("matmul") > efficiency.ratio("convolution")
    assert efficiency.ratio("matmul") > efficiency.ratio("elementwise")
    assert 0.0 < efficiency.dispatch_s < efficiency.fixed_s < 1e-3


def test_an_unknown_runtime_is_told_the_names() -> None:
    with pytest.raises(
        InputError,
        match=r"fleet\.program must be one that efficiency\.csv has a profile of .*onnx on any.*, got 'tflite'",
    ):
        load_profile().efficiency("tflite")


def test_a_phones_own_figures_beat_those_for_any() -> None:
    twice = Efficiency(
        runtime="plain",
        classes=PLAIN.classes,
        dispatch_s=PLAIN.dispatch_s,
        fixed_s=2 * PLAIN.fixed_s,
        parallel_ratio=PLAIN.parallel_ratio,
        core_peak_flops=PLAIN.core_peak_flops,
    )
    profile = Profile(where="here", efficiencies={("plain", "any"): PLAIN, ("plain", "Pixel 8"): twice})
    made = program_seconds(
        [Operator(name="mm", kind="matmul", flops=1e9, bytes=0.0)],
        profile=profile,
        runtime="plain",
        phones=["Pixel 8", "Pixel 3", "Pixel 8"],
        peak_flops=np.array([100e9, 100e9, 25e9]),
        memory_bytes_per_s=np.full(3, 10e9),
    )
    # 20 ms, or 80 ms on a quarter of the peak; 1 us of dispatch and the fixed cost, both twice there.
    np.testing.assert_allclose(made, [0.02 + 1e-6 + 2e-4, 0.02 + 1e-6 + 1e-4, 0.08 + 2e-6 + 4e-4])


def test_threads_beyond_the_big_cores_wait_for_the_little_ones() -> None:
    phone = find_phone("Pixel 8")
    cores = sum(cluster.cores for cluster in phone.clusters)
    slowest = min(cluster.peak_flops_one_thread for cluster in phone.clusters)
    assert shared_peak_flops(phone, threads=1) == phone.peak_flops_one_thread
    assert shared_peak_flops(phone, threads=cores) == pytest.approx(min(phone.peak_flops_all_cores, cores * slowest))
    # Nine equal shares for eight cores are eight.
    assert shared_peak_flops(phone, threads=cores + 1) == shared_peak_flops(phone, threads=cores)


@given(st.sampled_from(load_phones()), st.integers(1, 12))
def test_threads_never_add_up_to_more_than_all_cores(phone: object, threads: int) -> None:
    assert shared_peak_flops(phone, threads=threads) <= phone.peak_flops_all_cores * (1 + 1e-9)  # type: ignore[arg-type, attr-defined]
