import numpy as np
import pytest

from pocketfleet.device_sim.memory import RUNTIME_BYTES, fits


def test_program_and_runtime_fit_under_the_headroom() -> None:
    planned = 26 * 2**20
    # 26 + 64 MiB needed; a tenth of the free memory stays free, so 100 MiB are enough and 99 are not.
    free = np.array([100.0, 99.0, 0.0]) * 2**20
    assert fits(planned, free).tolist() == [True, False, False]


def test_the_runtime_alone_needs_room() -> None:
    # An empty program needs RUNTIME_BYTES / 0.9.
    least = RUNTIME_BYTES / 0.9
    assert fits(0, np.array([least * 1.001, least * 0.999])).tolist() == [True, False]


def test_a_negative_plan_is_refused() -> None:
    with pytest.raises(ValueError, match="must be 0 or more, got -1"):
        fits(-1, np.array([1e9]))
