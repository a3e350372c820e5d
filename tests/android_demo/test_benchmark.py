"""What the app's benchmark writes, measured on a JVM by the app's own classes, is what ``pocketfleet`` reads."""

import re
import subprocess
from pathlib import Path

import pytest

from compile import class_path, compiled, compiled_tests, locked
from host_runtime import host_libraries
from modules import MODULES
from pocketfleet import Bundle
from pocketfleet.device_sim.bench_report import bundle_facts, read_report

pytestmark = pytest.mark.android


def test_a_phones_file_is_read_calibrated_and_merged(
    pocketfleet, boston_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    with locked():
        jars = [compiled_tests("app"), compiled("app"), *class_path(MODULES["app"], tests=True)]
        libraries = host_libraries()
    written = tmp_path / "phone.json"
    command = ["java", "-Xmx1g", f"-Djava.library.path={libraries}", "-cp", ":".join(map(str, jars))]
    command += ["org.pocketfleet.demo.BenchmarkOnJvmKt", str(boston_bundle.path), str(written)]
    subprocess.run(command, check=True)

    report = read_report(written)
    (result,) = report.results
    assert result.bundle == bundle_facts(boston_bundle)
    (measured,) = result.measured
    footprint = boston_bundle.footprint("executorch")
    assert measured.download_bytes == boston_bundle.download_bytes("executorch")
    assert measured.planned_memory_bytes == footprint.training_memory_bytes
    (process,) = measured.processes
    assert [times.batch for times in process.steps] == [8, 1, 2, 4]
    for times in process.steps:
        flops = sum(operator.flops for operator in footprint.at("train_step", batch=times.batch))
        assert times.flops_per_s * times.latency.median_s == pytest.approx(flops)
        assert times.examples_per_s * times.latency.median_s == pytest.approx(times.batch)
    assert report.host.phone is not None
    assert report.host.phone.before.battery_amperes == -0.25
    assert report.host.phone.after.thermal_status is None

    called = pocketfleet("calibrate", written, "--bundle", boston_bundle.path)
    assert called.code == 0, called.err
    assert re.search(r"predicted before any fit[\s\S]*boston/executorch/8/1\s+Pixel 8\s+executorch", called.out)
    assert pocketfleet("merge-bench", written).code == 0
