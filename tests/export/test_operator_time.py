"""What a profile leaves unaccounted."""

import pytest

from pocketfleet.export.operator_time import OperatorTime, StepProfile


def test_unaccounted_time_is_what_no_operator_took() -> None:
    operators = (OperatorTime(name="Gemm", calls=2.0, seconds=0.5), OperatorTime(name="Relu", calls=1.0, seconds=0.25))
    assert StepProfile(operators=operators, step_s=1.0).unaccounted_s == pytest.approx(0.25)
    noted = StepProfile(operators=operators, step_s=1.0, profiler_s=0.2)
    assert noted.unaccounted_s == pytest.approx(0.05)
