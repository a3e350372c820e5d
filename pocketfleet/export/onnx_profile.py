"""How long each operator of an ONNX training step takes, from the runtime's own profiler.

Rules:

1. The profiler costs time itself: compare shares with it, not steps. After each operator it writes a note of shapes and
   memory, which takes about 3 us whatever the operator (measured on an x86-64 host, steps of 120 to 1,560 operators),
   as long as many operators.
2. So the same step is timed without the profiler too. What the profiled step takes longer is the profiler's, as far as
   it lies outside of operators; within operators nobody can tell it apart.

Tried with onnxruntime 1.32.0, whose profile is a list of events: ``model_run`` of category ``Session`` for a call, and
one of category ``Node`` whose name ends in ``_kernel_time`` for each operator; times in whole microseconds.
"""

import json
import math
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from pocketfleet.export.manifest import onnx_file
from pocketfleet.export.onnx import OnnxMethod, session_options
from pocketfleet.export.operator_time import OperatorTime, StepProfile
from pocketfleet.export.signature import Signature

__all__ = ["profile_onnx"]


def profile_onnx(
    folder: Path, signature: Signature, inputs: Sequence[torch.Tensor], *, warm_up: int, steps: int, threads: int = 1
) -> StepProfile:
    """Run ``train_step.onnx`` on the same inputs again and again.

    Args:
        folder: holds the file.
        signature: of its programs.
        inputs: in the order of the signature.
        warm_up: steps before the profile.
        steps: of which the quicker half counts, at least 1; as many again are timed without the profiler.
        threads: of each operator.

    Returns:
        Operators by the runtime's names, which it may have fused from several in the file.
    """
    values = [value.contiguous() for value in inputs]
    plain_s = _plain_step_s(folder, signature, values, warm_up=warm_up, steps=steps, threads=threads)
    with tempfile.TemporaryDirectory() as place:
        options = session_options(threads=threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(place) / "profile")
        method = OnnxMethod(folder / onnx_file("train_step"), signature.train_step, options)
        for _ in range(warm_up + steps):
            method(values)
        events = json.loads(Path(method.runtime.end_profiling()).read_text(encoding="utf-8"))
    return _profile(events, steps=steps, plain_s=plain_s)


def _plain_step_s(
    folder: Path, signature: Signature, values: list[torch.Tensor], *, warm_up: int, steps: int, threads: int
) -> float:
    """The mean of the quicker half of ``steps`` calls without the profiler."""
    method = OnnxMethod(folder / onnx_file("train_step"), signature.train_step, session_options(threads=threads))
    seconds = []
    for _ in range(warm_up + steps):
        start_s = time.perf_counter()
        method(values)
        seconds.append(time.perf_counter() - start_s)
    quicker = _quicker_half(seconds[warm_up:])
    return sum(quicker) / len(quicker)


def _quicker_half(values: Sequence[float]) -> list[float]:
    """What else the machine does only ever adds."""
    return sorted(values)[: (len(values) + 1) // 2]


def _profile(events: Sequence[dict[str, Any]], *, steps: int, plain_s: float) -> StepProfile:
    """Means over the quicker half of the last ``steps`` calls; ``plain_s`` is a step's without the profiler."""
    runs = [event for event in events if event["name"] == "model_run"][-steps:]
    slowest = max(_quicker_half([float(run["dur"]) for run in runs]))
    kept = [run for run in runs if run["dur"] <= slowest]
    calls: Counter[str] = Counter()
    micros: Counter[str] = Counter()
    for event in _kernels(events, kept):
        calls[event["args"]["op_name"]] += 1
        micros[event["args"]["op_name"]] += event["dur"]
    operators = [
        OperatorTime(name=name, calls=count / len(kept), seconds=micros[name] * 1e-6 / len(kept))
        for name, count in calls.items()
    ]
    step_s = sum(run["dur"] for run in kept) * 1e-6 / len(kept)
    outside_s = step_s - sum(operator.seconds for operator in operators)
    return StepProfile(
        operators=tuple(sorted(operators, key=lambda operator: operator.seconds, reverse=True)),
        step_s=step_s,
        profiler_s=min(max(step_s - plain_s, 0.0), max(outside_s, 0.0)),
    )


def _kernels(events: Sequence[dict[str, Any]], runs: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The operators' events within some of the calls."""
    starts = sorted((run["ts"], run["ts"] + run["dur"]) for run in runs)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            place = bisect_right(starts, (event["ts"], math.inf)) - 1
            if place >= 0 and event["ts"] <= starts[place][1]:
                yield event
