from pathlib import Path

import pytest
from bench_reports import latency, measurement, prediction, report, result, run, step

from pocketfleet.device_sim.bench_plot import check_picture, plot_report
from pocketfleet.device_sim.bench_report import SustainedPoint
from pocketfleet.errors import InputError

CURVE = (SustainedPoint(at_s=1.0, latency=latency(0.002)), SustainedPoint(at_s=2.0, latency=latency(0.003)))


@pytest.mark.parametrize("workloads", [1, 3])
def test_a_picture_of_everything(tmp_path: Path, workloads: int) -> None:
    results = [
        result(
            measurement("executorch", run(1, step(8, 0.003), step(1, 0.002)), sustained=CURVE),
            measurement("onnx", run(1, step(8, 0.002), step(1, 0.001)), run(2, step(8, 0.002)), sustained=CURVE),
            workload=f"w{number}",
            predicted=tuple(prediction("Pixel 8", 0.01, runtime=name) for name in ("executorch", "onnx")),
        )
        for number in range(workloads)
    ]
    drawn = plot_report(report(*results), tmp_path / "out.png")
    assert drawn.read_bytes().startswith(b"\x89PNG")


def test_the_least_that_a_report_holds_is_drawn_too(tmp_path: Path) -> None:
    bare = measurement("onnx", run(1, step(8, 0.002))).model_copy(update={"profile": None})
    assert plot_report(report(result(bare)), tmp_path / "out.png").is_file()


def test_a_file_that_is_no_picture() -> None:
    check_picture(Path("out.svg"))
    with pytest.raises(InputError, match=r"--plot must name a file ending in \.png, \.pdf, \.svg, got 'out\.txt'"):
        check_picture(Path("out.txt"))
