import dataclasses

import pytest

from pocketfleet.device_sim.fedscale_rule import fit_fedscale_rule
from pocketfleet.device_sim.measurement import Measurement, Work

STEP = Measurement(
    name="a",
    phone="host",
    runtime="onnx",
    scope="step",
    model="mlp",
    threads=1,
    seconds=6.0,
    peak_flops=1e11,
    parallel_peak_flops=1e11,
    memory_bytes_per_s=1e10,
    inference_flops=1e9,
    inference_s=1.0,
    work=(Work(operator_class="matmul", operators=1, flops=3e9, bytes=1.0),),
)


def test_a_step_is_three_inferences_times_the_scalar() -> None:
    # 6 s over 3 x 1 s: the scalar is 2; three other steps of 3 s over 3 x 1 s make its median 1.
    rule = fit_fedscale_rule([STEP])
    assert rule is not None
    assert rule.scalar == pytest.approx(2.0)
    assert rule.step_s(dataclasses.replace(STEP, inference_s=5.0)) == pytest.approx(30.0)
    others = [dataclasses.replace(STEP, seconds=3.0) for _ in range(3)]
    median = fit_fedscale_rule([STEP, *others])
    assert median is not None
    assert median.scalar == pytest.approx(1.0)


def test_operations_stand_in_where_no_inference_was_timed() -> None:
    rule = fit_fedscale_rule([dataclasses.replace(STEP, inference_s=0.0)])
    assert rule is not None
    assert not rule.timed
    # 6 s over 3e9 operations.
    assert rule.scalar == pytest.approx(2e-9)
    assert rule.step_s(dataclasses.replace(STEP, inference_flops=2e9)) == pytest.approx(12.0)


def test_there_is_no_rule_without_inference() -> None:
    assert fit_fedscale_rule([dataclasses.replace(STEP, inference_s=0.0, inference_flops=0.0)]) is None
    assert fit_fedscale_rule([dataclasses.replace(STEP, scope="operators")]) is None
    assert fit_fedscale_rule([]) is None
