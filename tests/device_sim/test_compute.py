import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.device_sim.compute import KINDS, Efficiency, load_efficiency, step_seconds
from pocketfleet.errors import InputError

# A host of 100 GFLOP/s; matmul at half of peak, convolution at a tenth, the rest at a hundredth.
PLAIN = Efficiency(
    runtime="plain", matmul=0.5, convolution=0.1, other=0.01, dispatch_s=1e-6, fixed_s=1e-4, host_peak_flops=100e9
)
PEAK = np.array([100e9, 25e9])
BANDWIDTH = np.array([10e9, 5e9])


def seconds(kind: list[str], flops: list[float], bytes: list[float]) -> np.ndarray:
    return step_seconds(
        kind=kind, flops=flops, bytes=bytes, peak_flops=PEAK, memory_bytes_per_s=BANDWIDTH, efficiency=PLAIN
    )


def test_an_empty_program_costs_the_fixed_part() -> None:
    # 100 us on the host's equal; sqrt(100 / 25) = 2 times that on a core of a quarter of its peak.
    np.testing.assert_allclose(seconds([], [], []), [1e-4, 2e-4])


def test_compute_bound_memory_bound_and_overheads_add_up() -> None:
    # matmul of 1e9 FLOP: 1e9 / (100e9 * 0.5) = 20 ms and 80 ms; its 1e6 bytes take 0.1 and 0.2 ms: compute bound.
    # other of 1e6 FLOP: 1e6 / (100e9 * 0.01) = 1 ms and 4 ms; its 1e9 bytes take 100 and 200 ms: memory bound.
    # Overheads: 100 us + 2 x 1 us, and twice that on the slower.
    expected = [0.020 + 0.100 + 1.02e-4, 0.080 + 0.200 + 2.04e-4]
    np.testing.assert_allclose(seconds(["matmul", "other"], [1e9, 1e6], [1e6, 1e9]), expected)


def test_a_convolution_has_its_own_efficiency() -> None:
    # 1e9 / (100e9 * 0.1) = 100 ms against the matmul's 20 ms; no bytes.
    difference = seconds(["convolution"], [1e9], [0]) - seconds(["matmul"], [1e9], [0])
    np.testing.assert_allclose(difference, [0.080, 0.320])


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3), st.integers(0, 3)), max_size=12))
def test_a_step_is_the_sum_of_its_operators(operators: list[tuple[str, int, int]]) -> None:
    fixed = seconds([], [], [])
    one_by_one = fixed.copy()
    for kind, flops, bytes in operators:
        one_by_one += seconds([kind], [flops * 1e8], [bytes * 1e7]) - fixed
    kinds = [kind for kind, _, _ in operators]
    together = seconds(kinds, [flops * 1e8 for _, flops, _ in operators], [bytes * 1e7 for _, _, bytes in operators])
    np.testing.assert_allclose(together, one_by_one, rtol=1e-9)


def test_unknown_kinds_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one of matmul, convolution, other, got 'attention'"):
        seconds(["attention"], [1.0], [1.0])
    with pytest.raises(ValueError, match="shorter"):
        seconds(["matmul", "matmul"], [1.0], [1.0])


@pytest.mark.parametrize("runtime", ["executorch", "onnx"])
def test_measured_efficiencies_are_ratios(runtime: str) -> None:
    efficiency = load_efficiency(runtime)
    assert efficiency.runtime == runtime
    for kind in KINDS:
        assert 0.0 < efficiency.ratio(kind) < 1.0
    # Stock kernels: matrix products are what runtimes are best at.
    assert efficiency.matmul > efficiency.convolution
    assert efficiency.matmul > efficiency.other
    assert 0.0 < efficiency.dispatch_s < efficiency.fixed_s < 1e-3


def test_an_unknown_runtime_is_told_the_names() -> None:
    with pytest.raises(InputError, match=r"fleet\.program must be one of executorch, onnx, got 'tflite'"):
        load_efficiency("tflite")
