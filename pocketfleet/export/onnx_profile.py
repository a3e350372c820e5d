"""How long each operator of an ONNX training step takes, from the runtime's own profiler.

The profiler costs time itself: compare shares with it, not steps.

Tried with onnxruntime 1.32.0, whose profile is a list of events: ``model_run`` of category ``Session`` for a call, and
one of category ``Node`` whose name ends in ``_kernel_time`` for each operator; times in whole microseconds.
"""

import json
import math
import tempfile
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
        steps: of which the quicker half counts, at least 1.
        threads: of each operator.

    Returns:
        Operators by the runtime's names, which it may have fused from several in the file.
    """
    values = [value.contiguous() for value in inputs]
    with tempfile.TemporaryDirectory() as place:
        options = session_options(threads=threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(place) / "profile")
        method = OnnxMethod(folder / onnx_file("train_step"), signature.train_step, options)
        for _ in range(warm_up + steps):
            method(values)
        events = json.loads(Path(method.runtime.end_profiling()).read_text(encoding="utf-8"))
    return _profile(events, steps=steps)


def _profile(events: Sequence[dict[str, Any]], *, steps: int) -> StepProfile:
    """Means over the quicker half of the last ``steps`` calls: what else the machine does only ever adds."""
    runs = [event for event in events if event["name"] == "model_run"][-steps:]
    kept = sorted(runs, key=lambda run: float(run["dur"]))[: (len(runs) + 1) // 2]
    calls: Counter[str] = Counter()
    micros: Counter[str] = Counter()
    for event in _kernels(events, kept):
        calls[event["args"]["op_name"]] += 1
        micros[event["args"]["op_name"]] += event["dur"]
    operators = [
        OperatorTime(name=name, calls=count / len(kept), seconds=micros[name] * 1e-6 / len(kept))
        for name, count in calls.items()
    ]
    return StepProfile(
        operators=tuple(sorted(operators, key=lambda operator: operator.seconds, reverse=True)),
        step_s=sum(run["dur"] for run in kept) * 1e-6 / len(kept),
    )


def _kernels(events: Sequence[dict[str, Any]], runs: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The operators' events within some of the calls."""
    starts = sorted((run["ts"], run["ts"] + run["dur"]) for run in runs)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            place = bisect_right(starts, (event["ts"], math.inf)) - 1
            if place >= 0 and event["ts"] <= starts[place][1]:
                yield event
