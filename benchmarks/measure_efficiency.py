"""Measure both runtimes on this machine, fit them, and say how well half of the models tells the other half.

    python benchmarks/measure_efficiency.py --bundles bundles/ --out measurements.csv

Chains of single operators (``operator_chains``) and whole training steps (``training_steps``) become one table, which
``pocketfleet calibrate`` reads too. The first time it exports thirteen models, which takes minutes; ``--bundles`` keeps
them. ``--recorded`` evaluates a table that is there instead of measuring. It fails where the demands below are missed.

Tried with torch 2.13.0, executorch 1.5.1, onnxruntime 1.32.0.
"""

import argparse
import dataclasses
import functools
import importlib.metadata
import itertools
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from chain_timing import measure_chain, measure_threaded_chain
from operator_chains import all_chains, convolution_chains, filled, product_chains
from training_steps import bundles, measure_steps, shortest_s

from pocketfleet.device_sim.calibration import GENERAL, Prediction, calibrate, hold_out_halves, predict_held_out
from pocketfleet.device_sim.efficiency import write_profile
from pocketfleet.device_sim.measurement import Measurement, read_measurements, write_measurements
from pocketfleet.export.executorch import limit_threads
from pocketfleet.export.quiet import quiet_export

# Of the models held out: median and 90th percentile of the relative error, and the median over FedScale's rule's.
MEDIAN, P90, OVER_FEDSCALE = 0.30, 0.70, 0.5
# Floats of a copy that no cache holds: 64 MiB.
COPIED = 2**24
THREADS = 2
# Of 252 halves of ten models twenty are enough for a mean.
HALVES_STRIDE = 12
# Both cores must be free at the same moment: that takes longer to happen.
THREADED_BUDGETS = 4


def host_peak_flops(budget_s: float) -> float:
    """The best rate of a large one-thread FP32 matrix product in PyTorch: a lower bound of the core's peak."""
    rates = []
    for side in (128, 192, 256, 384, 512):
        left, right = filled(side, side), filled(side, side)
        rates.append(2 * side**3 / shortest_s(functools.partial(torch.mm, left, right), budget_s=budget_s))
    return max(rates)


def host_memory_bytes_per_s(budget_s: float) -> float:
    """The rate of a copy on one thread, its reading and its writing both counted."""
    source = np.ones(COPIED, dtype=np.float32)
    target = np.empty_like(source)
    return 2 * source.nbytes / shortest_s(functools.partial(np.copyto, target, source), budget_s=budget_s)


def fastest(measurements: Iterable[Measurement]) -> list[Measurement]:
    """Of measurements of one name the shortest, its inference the shortest of any."""
    best: dict[str, Measurement] = {}
    for one in measurements:
        if one.seconds <= 0.0:
            # A slope in which the short chain was the one that was disturbed.
            continue
        known = best.get(one.name, one)
        least_s = {figure: min(getattr(one, figure), getattr(known, figure)) for figure in ("seconds", "inference_s")}
        best[one.name] = dataclasses.replace(known, **least_s)
    return list(best.values())


def two_threads(peak_flops: float, memory_bytes_per_s: float, budget_s: float) -> list[Measurement]:
    """Products and convolutions on two threads, whose cores are alike."""
    torch.set_num_threads(THREADS)
    limit_threads(THREADS)
    return [
        measure_threaded_chain(
            chain,
            runtime,
            threads=THREADS,
            peak_flops=peak_flops,
            memory_bytes_per_s=memory_bytes_per_s,
            budget_s=budget_s * THREADED_BUDGETS,
        )
        for chain in (*product_chains(), *convolution_chains())
        for runtime in chain.runtimes
    ]


def measure(folder: Path, *, passes: int, budget_s: float, threaded: bool) -> list[Measurement]:
    """Everything, every pass over all of it; the machine's own figures are the best of all passes."""
    torch.set_num_threads(1)
    limit_threads(1)
    found: list[Measurement] = []
    peak_flops = memory_bytes_per_s = 0.0
    with quiet_export():
        for _ in range(passes):
            peak_flops = max(peak_flops, host_peak_flops(budget_s))
            memory_bytes_per_s = max(memory_bytes_per_s, host_memory_bytes_per_s(budget_s))
            machine = {"peak_flops": peak_flops, "memory_bytes_per_s": memory_bytes_per_s, "budget_s": budget_s}
            for name, bundle in bundles(folder):
                found += measure_steps(name, bundle, **machine)
        for chain in all_chains():
            found += [measure_chain(chain, runtime, **machine) for runtime in chain.runtimes]
        if threaded:
            found += two_threads(**machine)
    return found


def settled(found: Iterable[Measurement]) -> list[Measurement]:
    """The shortest of each, on a machine whose peak and bandwidth are the best that anything reached."""
    shortest = fastest(found)
    products = [
        one for one in shortest if one.threads == 1 and {work.operator_class for work in one.work} == {"matmul"}
    ]
    rates = [sum(work.flops for work in one.work) / one.seconds for one in products]
    peak_flops = max(*rates, *(one.peak_flops for one in shortest))
    memory_bytes_per_s = max(one.memory_bytes_per_s for one in shortest)
    return [
        dataclasses.replace(
            one,
            peak_flops=peak_flops,
            parallel_peak_flops=peak_flops * one.threads,
            memory_bytes_per_s=memory_bytes_per_s,
        )
        for one in shortest
    ]


def provenance() -> str:
    """Which machine and versions."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("executorch", "onnxruntime", "torch")
    )
    return f"python benchmarks/measure_efficiency.py on {platform.machine()}, {os.cpu_count()} cores, {versions}"


def errors(values: Sequence[float | None]) -> tuple[float, float]:
    """Median and 90th percentile of the sizes of relative errors."""
    sizes = [abs(value) for value in values if value is not None]
    assert len(sizes) == len(values), "every whole step has its inference"
    median, p90 = np.percentile(sizes, [50, 90])
    return float(median), float(p90)


def judge(predictions: Sequence[Prediction]) -> bool:
    """Print the errors of each runtime, and whether the demands are met."""
    met = True
    for runtime in ("executorch", "onnx"):
        own = [one for one in predictions if one.measurement.runtime == runtime]
        assert own, f"no step of {runtime} was held out"
        median, p90 = errors([one.error for one in own])
        rule_median, rule_p90 = errors([one.fedscale_error for one in own])
        good = median < MEDIAN and p90 < P90 and median <= OVER_FEDSCALE * rule_median
        met = met and good
        print(
            f"{runtime}: {len(own)} steps held out, median error {median:.1%} (allowed {MEDIAN:.0%}), p90 {p90:.1%} "
            f"(allowed {P90:.0%}); FedScale's rule {rule_median:.1%} and {rule_p90:.1%}, of which the median is "
            f"{median / rule_median:.2f} (allowed {OVER_FEDSCALE}): {'met' if good else 'MISSED'}"
        )
    return met


def many_halves(measurements: Sequence[Measurement]) -> None:
    """Print how other ways to halve the models fare: every so-many-th of all choices of half of them."""
    for runtime in ("executorch", "onnx"):
        rows = [one for one in measurements if one.runtime == runtime]
        models = sorted({one.model for one in rows if one.model})
        choices = list(itertools.combinations(models, len(models) // 2))[::HALVES_STRIDE]
        medians = []
        for held_out in choices:
            predictions = predict_held_out(rows, models=held_out)
            ours, rule = (errors([getattr(one, name) for one in predictions]) for name in ("error", "fedscale_error"))
            medians.append((*ours, *rule))
        median, p90, rule_median, rule_p90 = np.mean(medians, axis=0)
        worst = max(row[0] for row in medians)
        print(
            f"{runtime}: mean over {len(choices)} halves: median error {median:.1%} (worst {worst:.1%}), p90 {p90:.1%};"
            f" FedScale's rule {rule_median:.1%} and {rule_p90:.1%}"
        )


def main() -> None:
    """Measure or read, judge, and leave the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, help="keep the models' bundles here, and use those that are there")
    parser.add_argument("--out", type=Path, help="write the measurements here")
    parser.add_argument("--profile", type=Path, help="write the profile here, as the packaged one was made")
    parser.add_argument("--recorded", type=Path, help="evaluate this table instead of measuring")
    parser.add_argument(
        "--earlier", type=Path, nargs="*", default=[], help="tables of this machine: shorter times count"
    )
    parser.add_argument("--threaded", action="store_true", help="measure two threads too")
    parser.add_argument("--many-halves", action="store_true", help="halve the models in other ways too")
    parser.add_argument("--passes", type=int, default=3, help="over all models; the shortest time of any counts")
    parser.add_argument("--seconds", type=float, default=0.5, help="of timing each program in a pass")
    arguments = parser.parse_args()
    found = [one for path in arguments.earlier for one in read_measurements(path)]
    if arguments.recorded:
        measurements = list(read_measurements(arguments.recorded))
    else:
        with tempfile.TemporaryDirectory() as folder:
            found += measure(
                arguments.bundles or Path(folder),
                passes=arguments.passes,
                budget_s=arguments.seconds,
                threaded=arguments.threaded,
            )
        measurements = settled(found)
    if arguments.out:
        write_measurements(measurements, arguments.out, source=provenance())
    if arguments.profile:
        profile = calibrate(measurements, start=GENERAL).profile
        write_profile(profile, arguments.profile, confidence="measured", source=f"fit to {provenance()}")
    met = judge(hold_out_halves(measurements))
    if arguments.many_halves:
        many_halves(measurements)
    print(f"minimum of repeats, one thread; load average {os.getloadavg()[0]:.1f}; {provenance()}", file=sys.stderr)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
