from pathlib import Path

import numpy as np
import pytest
from bench_reports import measurement, phone_report, report, result, run, step
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet import Bundle
from pocketfleet.device_sim.bench_measurement import Machine, grouped_work, measuring_phone, report_measurements
from pocketfleet.device_sim.bench_report import BenchReport, bundle_facts
from pocketfleet.device_sim.calibration import GENERAL, predicted_seconds
from pocketfleet.device_sim.compute import shared_peak_flops, step_seconds
from pocketfleet.device_sim.measurement import Measurement
from pocketfleet.device_sim.operator_class import operator_classes
from pocketfleet.device_sim.phone import find_phone
from pocketfleet.errors import InputError
from pocketfleet.export.footprint import Kind, Operator

HOST = Machine(name="host", peak_flops=1e11, memory_bytes_per_s=1e10)


def of_bundle(bundle: Bundle) -> BenchReport:
    """A report of two threads at batch 8, and one thread at batches 8 and 1."""
    measured = measurement("onnx", run(1, step(8, 0.004), step(1, 0.002)), run(2, step(8, 0.003)))
    one = result(measured)
    return report(one.model_copy(update={"bundle": bundle_facts(bundle)}))


def test_every_time_is_a_measurement_of_what_ran(boston_bundle: Bundle) -> None:
    found = report_measurements(of_bundle(boston_bundle), [(boston_bundle.path, boston_bundle)], machine=HOST)
    assert [(one.name, one.threads, one.seconds) for one in found] == [
        # The made report's minimum is half of its median.
        ("boston/onnx/8/1", 1, 0.002),
        ("boston/onnx/1/1", 1, 0.001),
        ("boston/onnx/8/2", 2, 0.0015),
    ]
    footprint = boston_bundle.footprint("onnx")
    assert sum(group.flops for group in found[0].work) == pytest.approx(footprint.step_flops)
    assert sum(group.bytes for group in found[0].work) == pytest.approx(footprint.step_bytes)
    assert sum(group.operators for group in found[0].work) == len(footprint.train_step)
    assert found[1].inference_flops == sum(one.flops for one in footprint.at("predict", batch=1))
    assert found[2].parallel_peak_flops == 2e11


def test_a_phone_shares_work_as_its_clusters_can(boston_bundle: Bundle) -> None:
    phone = find_phone("Pixel 8")
    found = report_measurements(
        of_bundle(boston_bundle), [(boston_bundle.path, boston_bundle)], machine=Machine.of(phone)
    )
    assert {one.phone for one in found} == {"Pixel 8"}
    assert found[2].parallel_peak_flops == shared_peak_flops(phone, threads=2)


def test_another_bundle_is_refused(boston_bundle: Bundle) -> None:
    foreign = report(result(measurement("onnx", run(1, step(8, 1.0)))))
    with pytest.raises(
        InputError, match=r"'boston' ran programs that are in none of the bundles given \(some/folder\)"
    ):
        report_measurements(foreign, [(Path("some/folder"), boston_bundle)], machine=HOST)


@pytest.mark.parametrize(
    ("manufacturer", "model", "name"),
    [("Google", "Pixel 8", "Pixel 8"), ("google", "pixel 8", "Pixel 8"), ("Xiaomi", "14", "Xiaomi 14")],
)
def test_a_phone_is_found_by_what_it_calls_itself(manufacturer: str, model: str, name: str) -> None:
    step_of = result(measurement("executorch", run(1, step(8, 1.0))))
    found = measuring_phone(phone_report(step_of, model=model, manufacturer=manufacturer))
    assert found is not None
    assert found.name == name
    assert measuring_phone(report(step_of)) is None


def test_a_phone_that_the_catalogue_lacks_must_be_named() -> None:
    unknown = phone_report(result(measurement("executorch", run(1, step(8, 1.0)))), model="Pixel 80")
    with pytest.raises(InputError, match=r"calls itself 'Pixel 80': .*close names: .*Pixel 8.*Name it with --phone"):
        measuring_phone(unknown)


kinds: list[tuple[Kind, str]] = [("matmul", "MatMul"), ("other", "Mul"), ("other", "Transpose")]
operators = st.builds(
    lambda kind, flops, moved: Operator(name=kind[1], kind=kind[0], flops=flops, bytes=moved),
    st.sampled_from(kinds),
    st.integers(0, 10**9).map(float),
    st.integers(0, 10**8).map(float),
)


@given(st.lists(operators, min_size=1, max_size=30))
def test_groups_take_what_their_operators_take(made: list[Operator]) -> None:
    (whole,) = step_seconds(
        kind=operator_classes(made),
        flops=[one.flops for one in made],
        bytes=[one.bytes for one in made],
        peak_flops=np.array([HOST.peak_flops]),
        memory_bytes_per_s=np.array([HOST.memory_bytes_per_s]),
        efficiency=GENERAL,
    )
    found = seconds_of_groups(made)
    # Intensities in a group are within a tenth of each other, and so are a roofline's sum and that of the sums.
    assert found == pytest.approx(whole, rel=0.1)


def seconds_of_groups(made: list[Operator]) -> float:
    blank = Measurement(
        name="a",
        phone="host",
        runtime="onnx",
        scope="step",
        model="",
        threads=1,
        seconds=1.0,
        peak_flops=HOST.peak_flops,
        parallel_peak_flops=HOST.peak_flops,
        memory_bytes_per_s=HOST.memory_bytes_per_s,
        inference_flops=0.0,
        inference_s=0.0,
        work=grouped_work(made),
    )
    return predicted_seconds(blank, GENERAL)
