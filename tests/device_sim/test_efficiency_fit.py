"""A fit finds the efficiency that made its measurements, and its vectors say what the plain prediction says."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.device_sim.calibration import GENERAL, predicted_seconds
from pocketfleet.device_sim.efficiency import ClassCost, Efficiency
from pocketfleet.device_sim.efficiency_fit import fit_efficiency
from pocketfleet.device_sim.measurement import Measurement, Work

TRUE = Efficiency(
    runtime="onnx",
    classes={
        "matmul": ClassCost(efficiency=0.4, byte_s=2e-10),
        "copy": ClassCost(efficiency=0.05, byte_s=3e-9),
        "elementwise": ClassCost(efficiency=0.02, byte_s=5e-10),
    },
    dispatch_s=2e-6,
    fixed_s=3e-5,
    parallel_ratio=0.8,
    core_peak_flops=1e11,
)


def measurement(
    *groups: tuple[str, int, float, float], scope: str = "step", threads: int = 1, name: str = "m"
) -> Measurement:
    """Of groups of class, number, operations and bytes each; its seconds are what ``TRUE`` says."""
    blank = Measurement(
        name=name,
        phone="host",
        runtime="onnx",
        scope="step" if scope == "step" else "operators",
        model=name,
        threads=threads,
        seconds=1.0,
        peak_flops=1e11,
        parallel_peak_flops=1e11 * threads,
        memory_bytes_per_s=1e11,
        inference_flops=0.0,
        inference_s=0.0,
        work=tuple(
            Work(operator_class=kind, operators=count, flops=count * flops, bytes=count * moved)
            for kind, count, flops, moved in groups
        ),
    )
    return dataclasses.replace(blank, seconds=predicted_seconds(blank, TRUE))


def rows() -> list[Measurement]:
    """Each parameter shows in some row: large products, large copies, many small operators, an empty step, threads."""
    return [
        *(measurement(("matmul", 3, size, 1e3), threads=threads) for size in (1e7, 1e8, 1e9) for threads in (1, 2)),
        *(measurement(("matmul", 3, 1e3, size)) for size in (1e6, 1e7)),
        *(measurement(("copy", 5, 0.0, size), scope="operators") for size in (1e5, 1e6, 1e7)),
        *(measurement(("elementwise", 2, 1e6, size)) for size in (1e3, 1e7)),
        *(measurement(("copy", count, 0.0, 4.0)) for count in (1, 100, 1000)),
    ]


def test_what_made_the_measurements_is_found() -> None:
    found = fit_efficiency(rows(), start=GENERAL)
    for name in ("matmul", "elementwise"):
        assert found.ratio(name) == pytest.approx(TRUE.ratio(name), rel=0.05)
    for name, cost in TRUE.classes.items():
        assert found.cost(name).byte_s == pytest.approx(cost.byte_s, rel=0.1)
    assert found.dispatch_s == pytest.approx(TRUE.dispatch_s, rel=0.05)
    assert found.fixed_s == pytest.approx(TRUE.fixed_s, rel=0.05)
    assert found.parallel_ratio == pytest.approx(TRUE.parallel_ratio, rel=0.1)
    for row in rows():
        assert predicted_seconds(row, found) == pytest.approx(row.seconds, rel=0.05)


def test_what_no_row_tells_stays_at_the_start() -> None:
    found = fit_efficiency(rows(), start=GENERAL)
    assert found.cost("pooling").byte_s == pytest.approx(GENERAL.cost("pooling").byte_s)
    assert found.ratio("convolution") == pytest.approx(GENERAL.ratio("convolution"))
    # Its name says so. Copies do no arithmetic, and convolutions and pooling are in no row.
    assert found.untold >= {"pooling.byte_s", "pooling.efficiency", "convolution.efficiency", "copy.efficiency"}
    assert not found.untold & {"matmul.efficiency", "copy.byte_s", "dispatch_s", "fixed_s", "parallel_ratio"}
    # A parameter that rows tell is told where the fit began at its value, too.
    again = fit_efficiency(rows(), start=dataclasses.replace(TRUE, classes={**GENERAL.classes, **TRUE.classes}))
    assert "matmul.efficiency" not in again.untold
    assert again.ratio("matmul") == pytest.approx(TRUE.ratio("matmul"), rel=1e-3)
    # Neither several threads nor a whole step were measured.
    assert fit_efficiency(rows()[8:11], start=GENERAL).untold >= {"fixed_s", "parallel_ratio"}


def test_a_start_from_another_core_is_carried_over() -> None:
    # A core of four times the peak has the packaged overheads by half.
    start = dataclasses.replace(GENERAL, core_peak_flops=4e11)
    found = fit_efficiency(rows()[:1], start=start)
    assert found.cost("copy").byte_s == pytest.approx(2.0 * GENERAL.cost("copy").byte_s)
    assert found.core_peak_flops == 1e11


@pytest.mark.parametrize("factor", [0.01, 1000.0])
def test_an_efficiency_stays_a_ratio_whatever_was_measured(factor: float) -> None:
    found = fit_efficiency([dataclasses.replace(row, seconds=row.seconds * factor) for row in rows()], start=GENERAL)
    assert all(0.0 < cost.efficiency <= 1.0 for cost in found.classes.values())
    assert found.dispatch_s > 0.0
    assert found.fixed_s > 0.0


def test_a_class_of_its_own_is_fitted_too() -> None:
    own = [dataclasses.replace(measurement(("copy", 1, 0.0, 1e6)), seconds=0.25) for _ in range(3)]
    lstm = [dataclasses.replace(one, work=(dataclasses.replace(one.work[0], operator_class="lstm"),)) for one in own]
    assert fit_efficiency(lstm, start=GENERAL).cost("lstm").byte_s == pytest.approx(0.25e-6, rel=0.2)


groups = st.lists(
    st.tuples(
        st.sampled_from(["matmul", "copy", "elementwise"]),
        st.integers(1, 50),
        st.floats(0.0, 1e9),
        st.floats(0.0, 1e8),
    ),
    min_size=1,
    max_size=4,
)


@given(st.lists(st.tuples(groups, st.sampled_from(["step", "operators"]), st.integers(1, 3)), min_size=1, max_size=3))
@settings(max_examples=25, deadline=None)
def test_vectors_and_plain_prediction_agree(made: list[tuple[list[tuple[str, int, float, float]], str, int]]) -> None:
    # Measurements that the start tells exactly are left where they are only if the vectors say the same of them.
    told = [measurement(*own, scope=scope, threads=threads) for own, scope, threads in made]
    found = fit_efficiency(told, start=TRUE)
    np.testing.assert_allclose(
        [predicted_seconds(one, found) for one in told], [one.seconds for one in told], rtol=1e-6
    )
