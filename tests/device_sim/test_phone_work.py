import numpy as np
import pytest

from pocketfleet.device_sim.phone_work import PhoneWork, host_peak_flops


def work(**changed) -> PhoneWork:
    values = {
        "phone_flops": np.array([5e9, 2e9]),
        "host_flops": 1e10,
        "flops_per_example": {},
        "efficiency_ratio": 0.1,
    }
    return PhoneWork(**(values | changed))


def test_measured_work_scales_by_the_ratio_of_peaks() -> None:
    # 2 s at 10 GFLOPS are 4 s at 5 and 10 s at 2, whatever the examples.
    for kind in ("train", "evaluate", "query"):
        assert work().seconds(0, kind=kind, cpu_s=2.0, num_examples=7) == pytest.approx(4.0)
        assert work().seconds(1, kind=kind, cpu_s=2.0, num_examples=0) == pytest.approx(10.0)


def test_given_work_is_of_examples_and_not_of_what_was_measured() -> None:
    given = work(flops_per_example={"train": 3e6, "evaluate": 1e6}, host_flops=0.0)
    # 20 examples of 3 MFLOP are 60 MFLOP; a tenth of 2 GFLOPS takes 0.3 s for them.
    assert given.seconds(1, kind="train", cpu_s=9.0, num_examples=20) == pytest.approx(0.3)
    assert given.seconds(1, kind="evaluate", cpu_s=9.0, num_examples=20) == pytest.approx(0.1)
    assert given.seconds(1, kind="query", cpu_s=9.0, num_examples=20) == 1e-6


def test_this_host_reaches_a_rate_that_a_core_can_have() -> None:
    # One core of any machine of the last ten years: above 1 GFLOPS, and below the 64 FLOP a cycle of AVX-512 at 6 GHz.
    assert 1e9 < host_peak_flops() < 400e9
