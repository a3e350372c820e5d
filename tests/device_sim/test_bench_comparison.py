from pathlib import Path

import pytest
from bench_reports import measurement, prediction, report, result, run, step

from pocketfleet.device_sim.bench_comparison import compare_reports, merge_reports
from pocketfleet.errors import InputError


def test_ratios_are_now_over_before() -> None:
    before = report(result(measurement("onnx", run(1, step(8, 0.004), step(1, 0.001), load_s=0.4, peak=200_000_000))))
    now = report(result(measurement("onnx", run(1, step(8, 0.002), step(1, 0.003), load_s=0.1, peak=300_000_000))))
    eight, one = compare_reports(now, before)
    assert (eight.batch, one.batch) == (8, 1)
    # 0.002 / 0.004, 0.003 / 0.001, 0.1 / 0.4, 300 / 200
    assert (eight.step_ratio, eight.p95_ratio, one.step_ratio) == pytest.approx((0.5, 0.5, 3.0))
    assert (eight.load_ratio, eight.rss_ratio) == pytest.approx((0.25, 1.5))
    assert eight.same_programs
    assert eight.same_host


def test_only_equal_work_is_compared() -> None:
    before = report(
        result(
            measurement("onnx", run(1, step(8, 0.004))),
            measurement("executorch", run(1, step(8, 0.004)), run(2, step(8, 0.004))),
            programs="c" * 64,
        ),
        host="another core",
    )
    now = report(result(measurement("executorch", run(1, step(4, 0.1), step(8, 0.004)), run(4, step(4, 0.1)))))
    (row,) = compare_reports(now, before)
    assert (row.runtime, row.threads, row.batch) == ("executorch", 1, 8)
    assert row.rss_ratio is None  # one process held a batch of 4, the other of 8
    assert not row.same_programs
    assert not row.same_host


def test_a_baseline_of_another_bundle() -> None:
    now = report(result(measurement("onnx", run(1, step(8, 0.002)))))
    other = report(result(measurement("onnx", run(1, step(8, 0.002))), sha="d" * 64))
    with pytest.raises(InputError, match="measured another bundle of 'boston'"):
        compare_reports(now, other)
    stranger = report(result(measurement("onnx", run(1, step(8, 0.002))), workload="mnist"))
    with pytest.raises(InputError, match="the baseline measured mnist, this is boston"):
        compare_reports(now, stranger)


def test_a_baseline_of_other_runtimes() -> None:
    now = report(result(measurement("onnx", run(1, step(8, 0.002)))))
    other = report(result(measurement("executorch", run(1, step(8, 0.002)))))
    with pytest.raises(InputError, match="holds no runtime, threads and batch that were measured now"):
        compare_reports(now, other)


def test_machines_and_phones_in_one_table() -> None:
    phone = prediction("Pixel 8", 0.01)
    slow = report(result(measurement("onnx", run(1, step(8, 0.004))), predicted=(phone,)), host="slow core")
    fast = report(result(measurement("onnx", run(1, step(8, 0.002))), predicted=(phone,)), host="fast core")
    rows = merge_reports([(Path("slow.json"), slow), (Path("fast.json"), fast)])
    assert [(row.figures, row.device) for row in rows] == [
        ("measured", "fast core"),
        ("measured", "slow core"),
        ("predicted", "Pixel 8"),
    ]
    assert rows[0].examples_per_s == pytest.approx(4000.0)  # 8 examples in 2 ms
    assert rows[2].examples_per_s == pytest.approx(800.0)
    assert (rows[0].joules, rows[2].joules, rows[2].peak_rss_bytes) == (None, 0.02, None)


def test_two_machines_of_one_name_are_told_apart() -> None:
    one = report(result(measurement("onnx", run(1, step(8, 0.004)))))
    rows = merge_reports([(Path("here/first.json"), one), (Path("there/second.json"), one)])
    assert {row.device for row in rows} == {"some core (first)", "some core (second)"}


def test_other_work_does_not_enter_a_table() -> None:
    one = report(result(measurement("onnx", run(1, step(8, 0.004)))))
    other = report(result(measurement("onnx", run(1, step(8, 0.004))), sha="d" * 64))
    with pytest.raises(InputError, match=r"a\.json and b\.json measured different bundles of 'boston'"):
        merge_reports([(Path("a.json"), one), (Path("b.json"), other)])
