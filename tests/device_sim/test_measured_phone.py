"""What the commands make of a result that the Android app measured."""

import re
from pathlib import Path

import pytest
from bench_reports import measurement, phone_report, report, result, run, step

from pocketfleet import Bundle
from pocketfleet.device_sim.bench_prediction import predict_phones
from pocketfleet.device_sim.bench_report import bundle_facts
from pocketfleet.device_sim.efficiency import load_profile
from pocketfleet.device_sim.phone import find_phone


def test_a_phone_says_which_it_is_and_how_far_off_it_was(
    pocketfleet, boston_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    (predicted,) = predict_phones(boston_bundle, [find_phone("Pixel 8")], runtimes=["executorch"], batch=8)
    # The phone took twice as long as it was predicted to: the made report's minimum is half of its median.
    measured = measurement("executorch", run(1, step(8, 4 * predicted.step_s)))
    told = phone_report(result(measured).model_copy(update={"bundle": bundle_facts(boston_bundle)}))
    told.write(Path("phone.json"))
    called = pocketfleet("calibrate", "phone.json", "--bundle", boston_bundle.path, "--out", "mine.csv")
    assert called.code == 0, called.err
    before = called.out.split("measured, and told by the fit")[0]
    assert "predicted before any fit" in before
    assert re.search(r"boston/executorch/8/1\s+Pixel 8\s+executorch\s+.*-50%", before)
    assert load_profile("mine.csv").has_own("executorch", "Pixel 8")
    called = pocketfleet("merge-bench", "phone.json")
    assert called.code == 0, called.err
    assert re.search(r"Pixel 8\s+8.0 GB\s+3 > 3 GB\s+31 > 36.5 C\s+-0.35 > -0.35 A\s+0 > \?\s+yes", called.out)


def test_a_machine_that_is_no_phone_does_not_say_what_it_is(pocketfleet) -> None:
    report(result(measurement("onnx", run(1, step(8, 0.001))))).write(Path("bench.json"))
    called = pocketfleet("calibrate", "bench.json")
    assert called.code == 2
    assert "bench.json does not say what it ran on: name a phone with --phone" in called.err
