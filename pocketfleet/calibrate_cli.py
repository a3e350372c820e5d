"""The command ``calibrate``; ``cli`` puts it on its program.

Everything heavy is imported inside the command that needs it, so that ``--help`` is quick.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketfleet.errors import InputError
from pocketfleet.printing import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pocketfleet.device_sim.bench_measurement import Machine
    from pocketfleet.device_sim.bench_report import BenchReport
    from pocketfleet.device_sim.calibration import Prediction
    from pocketfleet.device_sim.efficiency import Efficiency, Profile
    from pocketfleet.device_sim.measurement import Measurement

__all__ = ["calibrate"]

_GIGA = 1e9


def calibrate(
    files: Annotated[list[Path], typer.Argument(help="Measurements: CSV files, or results of bench --json.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the profile here, a CSV.")] = None,
    bundle: Annotated[
        list[Path] | None, typer.Option(metavar="FOLDER", help="A bundle that bench ran; may be repeated.")
    ] = None,
    phone: Annotated[
        str | None, typer.Option(help="The catalogue's phone that bench ran on; a phone's own result says it.")
    ] = None,
    peak_gflops: Annotated[
        float | None, typer.Option(min=0.0, help="Of another machine that bench ran on: one thread's peak.")
    ] = None,
    memory_gb_per_s: Annotated[float | None, typer.Option(min=0.0, help="The same machine's memory bandwidth.")] = None,
    halves: Annotated[
        bool, typer.Option("--halves", help="Print errors of each half of the models, fitted on the other.")
    ] = False,
    rows_out: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the measurements here, as one CSV.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Fit efficiencies, dispatch and fixed cost to measured training steps, and write them as a profile."""
    from pocketfleet.device_sim import calibration
    from pocketfleet.device_sim.efficiency import write_profile
    from pocketfleet.device_sim.measurement import write_measurements

    _check_targets(out, rows_out)
    measurements = _measurements(
        files, bundle or [], machine=_machine(phone, peak_gflops=peak_gflops, memory_gb_per_s=memory_gb_per_s)
    )
    held_out = calibration.hold_out_halves(measurements) if halves else ()
    packaged = calibration.predict_by_packaged(one for one in measurements if one.phone != calibration.HOST)
    fitted = calibration.calibrate(measurements)
    if rows_out is not None:
        write_measurements(measurements, rows_out, source=", ".join(path.name for path in files))
    if out is not None:
        source = f"pocketfleet calibrate {' '.join(path.name for path in files)}: {len(measurements)} measurements"
        write_profile(fitted.profile, out, confidence="fitted", source=source)
    if quiet:
        return
    if packaged:
        print_table(_error_rows(packaged), title="measured, and predicted before any fit")
        print_table(_summary_rows(packaged), title="how far the predictions before any fit were off")
    print_table(_error_rows(fitted.predictions), title="measured, and told by the fit")
    print_table(_summary_rows(fitted.predictions), title="errors of the rows that were fitted")
    if halves:
        print_table(_error_rows(held_out), title="measured, and predicted from the other half of the models")
        print_table(_summary_rows(held_out), title="errors of the rows that were held out")
    where = "profile" if out is None else f"profile, in {out}"
    print_table(_parameter_rows(fitted.profile), title=f"{where} (~: the start value, told by no row)")


def _machine(phone: str | None, *, peak_gflops: float | None, memory_gb_per_s: float | None) -> "Machine | None":
    from pocketfleet.device_sim.bench_measurement import Machine
    from pocketfleet.device_sim.calibration import HOST
    from pocketfleet.device_sim.phone import find_phone

    if phone is not None:
        if peak_gflops is not None or memory_gb_per_s is not None:
            raise InputError("--phone names a machine that the catalogue knows: leave out its peak and its bandwidth")
        return Machine.of(find_phone(phone))
    if peak_gflops and memory_gb_per_s:
        return Machine(name=HOST, peak_flops=peak_gflops * _GIGA, memory_bytes_per_s=memory_gb_per_s * _GIGA)
    if peak_gflops is not None or memory_gb_per_s is not None:
        raise InputError("--peak-gflops and --memory-gb-per-s go together, each more than 0")
    return None


def _measurements(files: list[Path], folders: list[Path], *, machine: "Machine | None") -> "list[Measurement]":
    from pocketfleet.device_sim.bench_measurement import report_measurements
    from pocketfleet.device_sim.bench_report import read_report
    from pocketfleet.device_sim.measurement import read_measurements
    from pocketfleet.export.bundle import Bundle

    reports = {path: read_report(path) for path in files if path.suffix == ".json"}
    machines = {path: machine or _measured_on(path, report) for path, report in reports.items()}
    bundles = [(folder, Bundle.load(folder)) for folder in folders]
    found: list[Measurement] = []
    for path in files:
        if path in reports:
            found += report_measurements(reports[path], bundles, machine=machines[path])
        else:
            found += read_measurements(path)
    return found


def _measured_on(path: Path, report: "BenchReport") -> "Machine":
    from pocketfleet.device_sim.bench_measurement import Machine, measuring_phone

    phone = measuring_phone(report)
    if phone is None:
        raise InputError(
            f"{path} does not say what it ran on: name a phone with --phone, or its figures with --peak-gflops "
            "and --memory-gb-per-s"
        )
    return Machine.of(phone)


def _error_rows(predictions: "Sequence[Prediction]") -> list[dict[str, Any]]:
    return [
        {
            "measurement": one.measurement.name,
            "phone": one.measurement.phone,
            "runtime": one.measurement.runtime,
            "measured": f"{one.measurement.seconds * 1e3:.3g} ms",
            "predicted": f"{one.predicted_s * 1e3:.3g} ms",
            "error": f"{one.error:+.0%}",
            "FedScale's rule": "" if one.fedscale_error is None else f"{one.fedscale_error:+.0%}",
        }
        for one in predictions
    ]


def _summary_rows(predictions: "Sequence[Prediction]") -> list[dict[str, Any]]:
    groups: dict[tuple[str, str, str], list[Prediction]] = {}
    for one in predictions:
        key = (one.measurement.phone, one.measurement.runtime, one.measurement.scope)
        groups.setdefault(key, []).append(one)
    return [
        {
            "phone": phone,
            "runtime": runtime,
            "scope": scope,
            "rows": len(own),
            "median, p90": _median_p90([one.error for one in own]),
            "FedScale's rule": _median_p90([one.fedscale_error for one in own if one.fedscale_error is not None]),
        }
        for (phone, runtime, scope), own in groups.items()
    ]


def _median_p90(errors: "Sequence[float]") -> str:
    import numpy as np

    if not errors:
        return ""
    median, p90 = np.percentile(np.abs(errors), [50, 90])
    return f"{median:.1%}, {p90:.1%}"


def _parameter_rows(profile: "Profile") -> list[dict[str, Any]]:
    def cell(efficiency: "Efficiency", parameter: str, value: str) -> str:
        return f"~{value}" if parameter in efficiency.untold else value

    return [
        {
            "runtime": runtime,
            "phone": phone,
            "class": name,
            "efficiency": cell(efficiency, f"{name}.efficiency", f"{cost.efficiency:.3g}"),
            "a gigabyte": cell(efficiency, f"{name}.byte_s", f"{cost.byte_s * _GIGA:.3g} s"),
            "dispatch": cell(efficiency, "dispatch_s", f"{efficiency.dispatch_s * 1e6:.3g} us")
            if cost.dispatch_s is None
            else cell(efficiency, f"{name}.dispatch_s", f"{cost.dispatch_s * 1e6:.3g} us"),
            "fixed": cell(efficiency, "fixed_s", f"{efficiency.fixed_s * 1e6:.3g} us"),
        }
        for (runtime, phone), efficiency in profile.efficiencies.items()
        for name, cost in efficiency.classes.items()
    ]


def _check_targets(*files: Path | None) -> None:
    for file in files:
        if file is not None and (file.is_dir() or not file.parent.is_dir()):
            raise InputError(f"{file} cannot be written: name a file in a folder that is there")
