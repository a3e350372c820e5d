"""From what ``pocketfleet bench`` measured, and the bundle that it ran, to rows for ``pocketfleet calibrate``.

Rules:

1. A row group is one whole step: the shortest of the benchmark's steps at one batch size and number of threads.
2. What ran in it is the bundle's footprint. It must be the bundle that was measured: its programs' hashes say so.
3. A benchmark times no predictions, so inference is given by its operations.
4. A phone that measured says which it is, by its maker's words. The catalogue's phone is the one of that model's name,
   or of maker and model together, upper and lower case alike.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pocketfleet.device_sim.bench_report import BenchReport, StepTimes, WorkloadResult, bundle_facts
from pocketfleet.device_sim.compute import shared_peak_flops
from pocketfleet.device_sim.measurement import Measurement, Work
from pocketfleet.device_sim.operator_class import operator_classes
from pocketfleet.device_sim.phone import Phone, find_phone, load_phones
from pocketfleet.errors import InputError
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.footprint import Operator
from pocketfleet.export.session import Runtime

__all__ = ["Machine", "grouped_work", "measuring_phone", "report_measurements"]

# Intensities that differ by less count as alike: a twentieth either way is less than any fit's error.
_LIKE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a benchmark ran on: a phone's name or ``host``, one thread's peak and the memory's bandwidth."""

    name: str
    peak_flops: float
    memory_bytes_per_s: float
    phone: Phone | None = None

    @classmethod
    def of(cls, phone: Phone) -> "Machine":
        """A phone of the catalogue."""
        return cls(
            name=phone.name,
            peak_flops=phone.peak_flops_one_thread,
            memory_bytes_per_s=phone.memory_bytes_per_s,
            phone=phone,
        )

    def parallel_peak_flops(self, threads: int) -> float:
        """The peak of so many threads; of another machine, its cores taken to be equal, times one's."""
        return self.peak_flops * threads if self.phone is None else shared_peak_flops(self.phone, threads=threads)


def measuring_phone(report: BenchReport) -> Phone | None:
    """The catalogue's phone that a result was measured on; ``None``: it was no phone that measured.

    Raises:
        InputError: the catalogue has no phone of the name that the phone gives itself.
    """
    facts = report.host.phone
    if facts is None:
        return None
    names = {facts.model.lower(), f"{facts.manufacturer} {facts.model}".lower()}
    for phone in load_phones():
        if phone.name.lower() in names:
            return phone
    try:
        return find_phone(facts.model)
    except InputError as exc:
        raise InputError(f"the phone that measured calls itself {facts.model!r}: {exc}. Name it with --phone") from exc


def report_measurements(
    report: BenchReport, bundles: Sequence[tuple[Path, Bundle]], *, machine: Machine
) -> tuple[Measurement, ...]:
    """The steps of a benchmark's result.

    Args:
        report: what ``bench --json`` wrote.
        bundles: those that it ran, in any order, with their folders.
        machine: that it ran on.

    Raises:
        InputError: a workload's bundle is not among them.
    """
    by_hash = {bundle_facts(bundle).programs_sha256: bundle for _, bundle in bundles}
    measurements: list[Measurement] = []
    for result in report.results:
        bundle = by_hash.get(result.bundle.programs_sha256)
        if bundle is None:
            given = ", ".join(str(path) for path, _ in bundles) or "none"
            raise InputError(
                f"the result's workload {result.workload!r} ran programs that are in none of the bundles given "
                f"({given}): name its folder with --bundle"
            )
        measurements += _steps(result, bundle, machine)
    return tuple(measurements)


def _steps(result: WorkloadResult, bundle: Bundle, machine: Machine) -> list[Measurement]:
    return [
        _step(result.workload, bundle, times, runtime=measured.runtime, threads=process.threads, machine=machine)
        for measured in result.measured
        for process in measured.processes
        for times in process.steps
    ]


def _step(
    workload: str, bundle: Bundle, times: StepTimes, *, runtime: Runtime, threads: int, machine: Machine
) -> Measurement:
    footprint = bundle.footprint(runtime)
    return Measurement(
        name=f"{workload}/{runtime}/{times.batch}/{threads}",
        phone=machine.name,
        runtime=runtime,
        scope="step",
        model=workload,
        threads=threads,
        seconds=times.latency.minimum_s,
        peak_flops=machine.peak_flops,
        parallel_peak_flops=machine.parallel_peak_flops(threads),
        memory_bytes_per_s=machine.memory_bytes_per_s,
        inference_flops=sum(operator.flops for operator in footprint.at("predict", batch=times.batch)),
        inference_s=0.0,
        work=grouped_work(footprint.at("train_step", batch=times.batch)),
    )


def grouped_work(operators: Iterable[Operator]) -> tuple[Work, ...]:
    """Operators in groups of one class and like intensity, in order of their first.

    The roofline of a group is the sum of its operators' where operations a byte are the same, however large each is.
    """
    listed = tuple(operators)
    groups: dict[tuple[str, int | None], Work] = {}
    for name, one in zip(operator_classes(listed), listed, strict=True):
        key = (name, _intensity(one))
        known = groups.get(key, Work(operator_class=name, operators=0, flops=0.0, bytes=0.0))
        groups[key] = Work(
            operator_class=name,
            operators=known.operators + 1,
            flops=known.flops + one.flops,
            bytes=known.bytes + one.bytes,
        )
    return tuple(groups.values())


def _intensity(operator: Operator) -> int | None:
    """Operations a byte, in steps of a tenth; none where there are no operations or no bytes."""
    if not operator.flops or not operator.bytes:
        return None
    return round(math.log(operator.flops / operator.bytes) / math.log(1.0 + _LIKE))
