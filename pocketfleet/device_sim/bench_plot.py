"""A benchmark's picture: latency by threads, throughput by batch, operators, the sustained curve, predicted phones.

Measured bars are filled, predicted ones are hatched and say so. A report of several workloads has one panel a
figure, with the workloads side by side.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pocketfleet.device_sim.bench_report import BenchReport, RuntimeMeasurement, WorkloadResult
from pocketfleet.errors import InputError

__all__ = ["check_picture", "plot_report"]

# Okabe and Ito's palette, told apart by colour-blind readers (jfly.uni-koeln.de/color).
_COLOURS = {"executorch": "#0072b2", "onnx": "#d55e00"}
_SLICES = ("#009e73", "#e69f00", "#56b4e9", "#cc79a7", "#f0e442", "#0072b2")
_UNACCOUNTED = "#999999"
# Operators with a slice of their own; more would be too thin to label.
_NAMED_OPERATORS = len(_SLICES)
_BAR = 0.4
_SUFFIXES = (".png", ".pdf", ".svg")


def plot_report(report: BenchReport, path: Path) -> Path:
    """Draw a report to ``path``, a PNG or what else ``check_picture`` lets through.

    Raises:
        InputError: ``path`` cannot be written.
    """
    # The figure's own canvas, not pyplot: no window system is touched and no global state is left behind.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [_latency]
    measured = [one for result in report.results for one in result.measured]
    if len(report.results) == 1:
        panels += [_throughput, *([_operators] if any(one.profile for one in measured) else [])]
    panels += [_sustained] if any(one.sustained for one in measured) else []
    panels += [_predicted] if any(result.predicted for result in report.results) else []
    figure = Figure(figsize=(12, 4.5 * -(-len(panels) // 2)), layout="constrained")
    FigureCanvasAgg(figure)
    title = f"suite {report.suite}" if report.suite else report.results[0].workload
    figure.suptitle(f"{title} on {report.host.name}")
    places = figure.subplots(-(-len(panels) // 2), 2, squeeze=False).flat
    for panel, axes in zip(panels, places, strict=False):
        panel(axes, report)
    for axes in list(places):
        axes.set_visible(False)
    try:
        figure.savefig(path, dpi=120)
    except OSError as exc:
        raise InputError(f"--plot {path} cannot be written: {exc}; name a .png in a folder that is there") from exc
    return path


def check_picture(path: Path) -> None:
    """Raise ``InputError`` unless a file's suffix names a kind of picture."""
    if path.suffix not in _SUFFIXES:
        raise InputError(f"--plot must name a file ending in {', '.join(_SUFFIXES)}, got {path.name!r}")


def _each(report: BenchReport) -> list[tuple[WorkloadResult, RuntimeMeasurement]]:
    return [(result, measured) for result in report.results for measured in result.measured]


def _label(report: BenchReport, result: WorkloadResult, rest: str) -> str:
    return rest if len(report.results) == 1 else f"{result.workload}, {rest}"


def _bars(
    axes: Any,  # noqa: ANN401 - matplotlib is untyped
    labels: Sequence[str],
    values: Sequence[float],
    colours: Sequence[str],
    **style: Any,  # noqa: ANN401 - matplotlib is untyped
) -> None:
    axes.barh(range(len(labels)), values, color=colours, **style)
    axes.set_yticks(range(len(labels)), labels, fontsize="small")
    axes.invert_yaxis()
    axes.set_xscale("log")


def _latency(axes: Any, report: BenchReport) -> None:  # noqa: ANN401 - matplotlib is untyped
    rows = [(result, one, run) for result, one in _each(report) for run in one.processes]
    steps = [run.steps[0].latency for _, _, run in rows]
    labels = [_label(report, result, f"{one.runtime}, {run.threads} thr.") for result, one, run in rows]
    medians = [1e3 * latency.median_s for latency in steps]
    above = [1e3 * max(latency.p95_s - latency.median_s, 0.0) for latency in steps]
    colours = [_COLOURS[one.runtime] for _, one, _ in rows]
    _bars(axes, labels, medians, colours, xerr=[[0.0] * len(above), above])
    axes.set_xlabel("ms a step, whisker at p95")
    axes.set_title("Measured latency")


def _throughput(axes: Any, report: BenchReport) -> None:  # noqa: ANN401 - matplotlib is untyped
    for _, one in _each(report):
        steps = sorted(one.processes[0].steps, key=lambda step: step.batch)
        batches, rates = [step.batch for step in steps], [step.examples_per_s for step in steps]
        axes.plot(batches, rates, marker="o", color=_COLOURS[one.runtime], label=one.runtime)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("batch")
    axes.set_ylabel("examples a second")
    axes.set_title("Measured throughput, one thread")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _operators(axes: Any, report: BenchReport) -> None:  # noqa: ANN401 - matplotlib is untyped
    names = []
    for place, (_, one) in enumerate(_each(report)):
        names.append(one.runtime)
        if one.profile is None:
            continue
        named = [(row.name, row.seconds) for row in one.profile.operators[:_NAMED_OPERATORS]]
        others = sum(row.seconds for row in one.profile.operators[_NAMED_OPERATORS:])
        parts = [*zip(named, _SLICES, strict=False), (("others", others), "#000000")]
        outside_s = one.profile.profiler_s + max(one.profile.unaccounted_s, 0.0)
        parts.append((("profiler and unaccounted", outside_s), _UNACCOUNTED))
        left = 0.0
        for (name, seconds), colour in parts:
            share = seconds / one.profile.step_s
            axes.barh(place, share, _BAR, left=left, color=colour, label=f"{one.runtime}: {name}")
            left += share
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("share of a profiled step")
    axes.set_title("Measured operators")
    axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _sustained(axes: Any, report: BenchReport) -> None:  # noqa: ANN401 - matplotlib is untyped
    for result, one in _each(report):
        seconds = [point.at_s for point in one.sustained]
        medians = [1e3 * point.latency.median_s for point in one.sustained]
        axes.plot(seconds, medians, marker=".", label=_label(report, result, one.runtime))
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("seconds since the start")
    axes.set_ylabel("ms a step, median")
    axes.set_title("Measured, sustained on one thread")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _predicted(axes: Any, report: BenchReport) -> None:  # noqa: ANN401 - matplotlib is untyped
    # The median phone's time is not of interest, each phone's is: with several workloads the first one stands for all.
    result = next(result for result in report.results if result.predicted)
    phones = list(dict.fromkeys(one.phone for one in result.predicted))
    runtimes = list(dict.fromkeys(one.runtime for one in result.predicted))
    height = 2 * _BAR / len(runtimes)
    for number, runtime in enumerate(runtimes):
        seconds = {one.phone: one.step_s for one in result.predicted if one.runtime == runtime}
        places = [place + number * height - _BAR / 2 for place in range(len(phones))]
        values = [1e3 * seconds[phone] for phone in phones]
        style = {"edgecolor": _COLOURS[runtime], "facecolor": "white", "hatch": "///"}
        axes.barh(places, values, height, label=runtime, **style)
    axes.set_yticks(range(len(phones)), phones, fontsize="x-small")
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("ms a step, PREDICTED")
    axes.set_title(f"Predicted, not measured: {result.workload}, one thread")
    axes.legend(fontsize="small")
