from pathlib import Path

import pytest
from bench_reports import latency, measurement, prediction, report, result, run, step

from pocketfleet.device_sim.bench_comparison import compare_reports, merge_reports
from pocketfleet.device_sim.bench_report import SustainedPoint
from pocketfleet.device_sim.bench_tables import comparison_table, duration, merged_table, report_tables


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.0, "2 s"), (250.0, "250 s"), (0.0142, "14.2 ms"), (0.1234, "123 ms"), (0.000229, "229 us"), (0.0, "0 us")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_report_reads_from_measured_to_predicted() -> None:
    # Two tenths' ends: the first point at 2 ms, the last at 3.
    curve = tuple(SustainedPoint(at_s=n + 1.0, latency=latency(0.002 + 0.0001 * n)) for n in range(11))
    tables = report_tables(
        report(
            result(
                measurement("onnx", run(1, step(8, 0.002), step(1, 0.001)), sustained=curve),
                predicted=(prediction("Pixel 8", 0.01), prediction("Redmi 6A", 0.05, fits=False)),
            )
        )
    )
    assert [table.title.split(":")[0] for table in tables] == [*["measured"] * 5, "PREDICTED, not measured"]
    steps, memory, batches, operators, sustained, phones = tables
    assert steps.rows[0]["median"] == "2 ms"
    assert steps.rows[0]["examples/s"] == "4,000"
    assert memory.rows[0]["by bundle"] == "50.0 MB"  # 300 at the peak less 250 before the bundle was opened
    assert (batches.rows[0]["batch 1"], batches.rows[0]["batch 8"]) == ("1 ms", "2 ms")
    assert [(row["operator"], row["share"]) for row in operators.rows] == [
        ("Gemm", "60.0%"),
        ("Add", "30.0%"),
        ("(profiler's notes)", "5.0%"),
        ("(unaccounted)", "5.0%"),
    ]
    assert sustained.rows[0]["last / first"] == "1.50"
    assert [row["onnx"] for row in phones.rows] == ["10 ms, 20 mJ, fits", "50 ms, 100 mJ, DOES NOT FIT"]


def test_ratios_say_where_they_come_from() -> None:
    now, before = (report(result(measurement("onnx", run(1, step(8, s)))), host=h) for s, h in ((0.2, "a"), (0.1, "b")))
    table = comparison_table(compare_reports(now, before), where="old.json")
    assert "old.json, on ANOTHER MACHINE" in table.title
    assert table.rows[0]["step"] == "2.00"


def test_a_merged_table_marks_what_is_predicted() -> None:
    one = report(result(measurement("onnx", run(1, step(8, 0.004))), predicted=(prediction("Pixel 8", 0.01),)))
    rows = merged_table(merge_reports([(Path("a.json"), one)])).rows
    assert [(row["figures"], row["energy"], row["fits"]) for row in rows] == [
        ("measured", "", ""),
        ("predicted", "20 mJ", "yes"),
    ]
