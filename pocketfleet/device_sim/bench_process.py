"""What one fresh process measures of one runtime: latency, memory and loading; a profile; or a sustained curve.

Run as ``python -m pocketfleet.device_sim.bench_process`` it reads a request as JSON from standard input and writes the
answer as JSON into the file that the request names. A process measures one thing and ends, so that neither memory nor
a pool of threads is left over from what ran before.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pocketfleet.device_sim.bench_inputs import StepInputs, step_inputs
from pocketfleet.device_sim.bench_report import (
    Latency,
    OperatorRow,
    ProcessRun,
    Profile,
    Rules,
    StepTimes,
    SustainedPoint,
)
from pocketfleet.device_sim.process_memory import forget_peak, peak_bytes, resident_bytes
from pocketfleet.errors import InputError, PocketfleetError
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.loaded_runtime import load_runtime
from pocketfleet.export.manifest import PTE_FILE
from pocketfleet.export.session import Runtime, Session, open_session

__all__ = ["ProcessAnswer", "ProcessRequest", "answer", "main"]

# A curve of as many points as a plot can show.
_SUSTAINED_POINTS = 60
# Stretches shorter than this would be single steps of a slow program.
_LEAST_STRETCH_S = 0.5
# Of repeated steps from one state: summing in another order on other threads moves a loss's last bits, no more.
_LOSS_TOLERANCE = 1e-4

_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)


class ProcessRequest(BaseModel):
    """What to measure; ``batches`` starts with the one whose memory is reported."""

    model_config = _STRICT

    what: Literal["steps", "profile", "sustained"]
    bundle: str
    runtime: Runtime
    threads: int = Field(ge=1)
    batches: tuple[int, ...] = Field(min_length=1)
    rules: Rules
    sustained_s: float = 0.0
    answer: str


class ProcessAnswer(BaseModel):
    """One of the first three, or why there is none; ``at_fault`` is ``"input"`` where the user can mend it."""

    model_config = _STRICT

    steps: ProcessRun | None = None
    profile: Profile | None = None
    sustained: tuple[SustainedPoint, ...] = ()
    error: str = ""
    at_fault: Literal["", "input", "us"] = ""


def answer(request: ProcessRequest) -> ProcessAnswer:
    """Measure what was asked, in this process.

    Raises:
        InputError: the bundle is none, or does not train: its loss is not finite.
        PocketfleetError: a step gave another loss than the same step before.
    """
    bundle = Bundle.load(Path(request.bundle))
    if request.what == "profile":
        return ProcessAnswer(profile=_profile(bundle, request))
    if request.what == "sustained":
        return ProcessAnswer(sustained=_sustained(bundle, request))
    return ProcessAnswer(steps=_steps(bundle, request))


def _opened(bundle: Bundle, runtime: Runtime, threads: int) -> Session:
    if runtime == "onnx" and threads > 1:
        from pocketfleet.export.onnx import OnnxSession

        return OnnxSession(bundle.path, bundle.signature, max_batch=bundle.max_batch, threads=threads)
    return open_session(bundle, runtime)


def _steps(bundle: Bundle, request: ProcessRequest) -> ProcessRun:
    inputs = step_inputs(bundle, batch=request.batches[0])
    load_runtime(request.runtime, threads=request.threads)
    idle_bytes = resident_bytes()
    forget_peak()
    started_s = time.perf_counter()
    session = _opened(bundle, request.runtime, request.threads)
    opened_s = time.perf_counter()
    inputs.run(session)
    first_s = time.perf_counter() - opened_s
    first = _timed_batch(bundle, request, session, inputs)
    most_bytes = peak_bytes()
    sweep = [_timed_batch(bundle, request, session, step_inputs(bundle, batch=batch)) for batch in request.batches[1:]]
    return ProcessRun(
        threads=request.threads,
        load_s=opened_s - started_s,
        first_step_s=first_s,
        idle_rss_bytes=idle_bytes,
        peak_rss_bytes=most_bytes,
        steps=(first, *sweep),
    )


def _timed_batch(bundle: Bundle, request: ProcessRequest, session: Session, inputs: StepInputs) -> StepTimes:
    batch, rules = len(inputs.x), request.rules
    with _checked_step(session, inputs, where=f"{request.runtime}, batch {batch}") as step:
        for _ in range(rules.warm_up_steps):
            step()
        latency = _latency(_timed(step, least_steps=rules.least_steps, least_s=rules.least_s))
    operators = bundle.footprint(request.runtime).at("train_step", batch=batch)
    return StepTimes(
        batch=batch,
        latency=latency,
        examples_per_s=batch / latency.median_s,
        flops_per_s=sum(operator.flops for operator in operators) / latency.median_s,
    )


@contextmanager
def _checked_step(session: Session, inputs: StepInputs, *, where: str) -> Iterator[Callable[[], float]]:
    """The step to time; on leaving, one more must give the loss that the first gave: faster must not mean less."""
    expected = inputs.run(session)
    if not np.isfinite(expected):
        raise InputError(
            f"the first step's loss is {expected} on drawn inputs ({where}): this bundle cannot be timed on them"
        )
    yield partial(inputs.run, session)
    found = inputs.run(session)
    if not np.isclose(found, expected, rtol=_LOSS_TOLERANCE, atol=_LOSS_TOLERANCE):
        raise PocketfleetError(f"the same step gave a loss of {expected}, and later of {found} ({where})")


def _timed(step: Callable[[], object], *, least_steps: int, least_s: float) -> list[float]:
    seconds: list[float] = []
    started_s = time.perf_counter()
    while len(seconds) < least_steps or time.perf_counter() - started_s < least_s:
        before_s = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - before_s)
    return seconds


def _latency(seconds: list[float]) -> Latency:
    median_s, p95_s = np.percentile(seconds, [50, 95])
    return Latency(steps=len(seconds), median_s=float(median_s), p95_s=float(p95_s), minimum_s=min(seconds))


def _sustained(bundle: Bundle, request: ProcessRequest) -> tuple[SustainedPoint, ...]:
    inputs = step_inputs(bundle, batch=request.batches[0])
    load_runtime(request.runtime, threads=request.threads)
    session = _opened(bundle, request.runtime, request.threads)
    stretch_s = max(_LEAST_STRETCH_S, request.sustained_s / _SUSTAINED_POINTS)
    points = []
    with _checked_step(session, inputs, where=f"{request.runtime}, sustained") as step:
        for _ in range(request.rules.warm_up_steps):
            step()
        started_s = time.perf_counter()
        while time.perf_counter() - started_s < request.sustained_s:
            latency = _latency(_timed(step, least_steps=1, least_s=stretch_s))
            points.append(SustainedPoint(at_s=time.perf_counter() - started_s, latency=latency))
    return tuple(points)


def _profile(bundle: Bundle, request: ProcessRequest) -> Profile:
    batch, rules = request.batches[0], request.rules
    inputs = step_inputs(bundle, batch=batch)
    load_runtime(request.runtime)
    if request.runtime == "executorch":
        from pocketfleet.export.executorch_profile import profile_executorch

        found = profile_executorch(
            bundle.path / PTE_FILE, list(inputs.flat), warm_up=rules.warm_up_steps, steps=rules.least_steps
        )
    else:
        from pocketfleet.export.onnx_profile import profile_onnx

        found = profile_onnx(
            bundle.path, bundle.signature, inputs.flat, warm_up=rules.warm_up_steps, steps=rules.least_steps
        )
    return Profile(
        batch=batch,
        steps=rules.least_steps,
        step_s=found.step_s,
        profiler_s=found.profiler_s,
        unaccounted_s=found.unaccounted_s,
        operators=tuple(OperatorRow(name=row.name, calls=row.calls, seconds=row.seconds) for row in found.operators),
    )


def main() -> None:
    """Answer the request on standard input; what a user can mend is an answer too."""
    request = ProcessRequest.model_validate_json(sys.stdin.read())
    try:
        found = answer(request)
    except PocketfleetError as exc:
        found = ProcessAnswer(error=str(exc), at_fault="input" if isinstance(exc, InputError) else "us")
    Path(request.answer).write_text(found.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
