import os
import subprocess
from pathlib import Path

import pytest

from pocketfleet import Bundle
from pocketfleet.device_sim import bench
from pocketfleet.device_sim.bench import BenchPlan, bench_bundle, bench_suite, parse_duration_s
from pocketfleet.device_sim.bench_prediction import chosen_phones
from pocketfleet.device_sim.bench_report import BenchReport, Rules
from pocketfleet.errors import BundleError, InputError, PocketfleetError

RULES = Rules(warm_up_steps=1, least_steps=3, least_s=0.0)


@pytest.fixture(scope="module")
def report(boston_bundle: Bundle) -> BenchReport:
    told: list[str] = []
    plan = BenchPlan(rules=RULES, phones=chosen_phones("Pixel 8"), batch=4, sustained_s=1.0)
    found = bench_bundle(boston_bundle.path, plan, observer=told.append)
    assert told[0] == "boston, executorch: 1 thread"
    assert told[-1] == "boston, onnx: sustained for 1 s"
    return found


def test_every_runtime_is_measured_apart(report: BenchReport, boston_bundle: Bundle) -> None:
    (result,) = report.results
    assert [one.runtime for one in result.measured] == ["executorch", "onnx"]
    for one in result.measured:
        assert one.download_bytes == boston_bundle.download_bytes(one.runtime)
        assert one.planned_memory_bytes == boston_bundle.footprint(one.runtime).training_memory_bytes
        assert [run.threads for run in one.processes] == bench._doubling(len(os.sched_getaffinity(0)))
        # The batch that was asked for first, then the powers of two and the largest.
        assert [step.batch for step in one.processes[0].steps] == [4, 1, 2, 8]
        assert all([step.batch for step in run.steps] == [4] for run in one.processes[1:])
        assert one.profile is not None
        assert one.profile.batch == 4
        assert one.sustained[-1].at_s >= 1.0
    assert [(one.phone, one.batch) for one in result.predicted] == [("Pixel 8", 4)] * 2


def test_a_report_says_on_what_it_was_measured(report: BenchReport) -> None:
    assert report.suite is None
    assert report.rules == RULES
    assert report.host.cores == len(os.sched_getaffinity(0))
    assert {"python", "pocketfleet", "torch", "executorch", "onnxruntime"} == set(report.host.versions)


def lacking(bundle: Bundle, runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the bundle be one that was exported for the other runtime alone."""
    footprint = {name: value for name, value in bundle.manifest.footprint.items() if name != runtime}
    less = Bundle(path=bundle.path, manifest=bundle.manifest.model_copy(update={"footprint": footprint}))
    monkeypatch.setattr(Bundle, "load", lambda _: less)


def no_process(request: object) -> object:
    raise AssertionError(f"nothing should be measured, but this is: {request}")


def test_a_runtime_that_the_bundle_lacks(boston_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(boston_bundle, "executorch", monkeypatch)
    monkeypatch.setattr(bench, "_asked", no_process)
    with pytest.raises(InputError, match="was exported for onnx, not for executorch: name another --runtime"):
        bench_bundle(boston_bundle.path, BenchPlan(runtimes=("executorch",)))


def test_a_bundle_for_one_runtime_is_measured_on_that_one(
    boston_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking(boston_bundle, "executorch", monkeypatch)
    found = bench_bundle(boston_bundle.path, BenchPlan(rules=RULES, phones=chosen_phones("Pixel 8")))
    assert [one.runtime for one in found.results[0].measured] == ["onnx"]
    assert [one.runtime for one in found.results[0].predicted] == ["onnx"]


@pytest.mark.parametrize("batch", [0, 9])
def test_a_batch_that_the_bundle_does_not_take(boston_bundle: Bundle, batch: int) -> None:
    with pytest.raises(InputError, match=f"--batch must be 1 to 8, the most that .* takes, got {batch}"):
        bench_bundle(boston_bundle.path, BenchPlan(batch=batch))


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is no bundle: it holds no manifest\.json"):
        bench_bundle(tmp_path, BenchPlan())


def test_a_baseline_of_another_bundle_is_refused_before_anything_runs(
    report: BenchReport, mnist_bundle: Bundle, boston_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "_asked", no_process)
    with pytest.raises(InputError, match="the baseline measured boston, this is mnist"):
        bench_bundle(mnist_bundle.path, BenchPlan(baseline=report))
    (result,) = report.results
    facts = result.bundle.model_copy(update={"workload_sha256": "0" * 64, "max_batch": 16})
    other = report.model_copy(update={"results": (result.model_copy(update={"bundle": facts}),)})
    with pytest.raises(InputError, match=r"another bundle of 'boston'.*\(16 there, 8 here\)"):
        bench_bundle(boston_bundle.path, BenchPlan(baseline=other))


def test_a_process_that_dies_is_told_with_its_last_words(
    boston_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def died(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], -9, "", "one\nlast words\n")

    monkeypatch.setattr(subprocess, "run", died)
    with pytest.raises(
        PocketfleetError, match=r"measured executorch \(steps, 1 threads\) ended with code -9: last words"
    ):
        bench_bundle(boston_bundle.path, BenchPlan())


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30.0), ("15m", 900.0), ("1.5h", 5400.0), ("24h", 86_400.0), ("1s", 1.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["15", "m", "-1m", "15 m", "0s", "25h", "1e3s", "15min", ""])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InputError, match="--sustained must be 1s to 24h, written such as 30s, 15m or 1h, got"):
        parse_duration_s(text)


def test_threads_and_batches_double() -> None:
    assert [bench._doubling(most) for most in (1, 2, 3, 8, 12)] == [
        [1],
        [1, 2],
        [1, 2, 3],
        [1, 2, 4, 8],
        [1, 2, 4, 8, 12],
    ]


def test_a_suite_is_measured_from_bundles_that_are_kept(tmp_path: Path) -> None:
    told: list[str] = []
    plan = BenchPlan(rules=RULES, runtimes=("onnx",))
    first = bench_suite("v1", plan, folder=tmp_path / "kept", workloads=("mlp",), observer=told.append)
    assert (first.suite, [result.workload for result in first.results]) == ("v1", ["mlp"])
    assert told[0] == "mlp: exporting"
    told.clear()
    second = bench_suite("v1", plan, folder=tmp_path / "kept", workloads=("mlp",), observer=told.append)
    assert told[0] == "mlp, onnx: 1 thread"
    assert second.results[0].bundle == first.results[0].bundle
