"""The profile of a training step: which operators, how often, and that they add up."""

from collections import Counter
from typing import Any

import pytest
import torch

from pocketfleet.export import Bundle
from pocketfleet.export.onnx_profile import _profile, profile_onnx


def _event(name: str, ts: int, dur: int, operator: str = "") -> dict[str, Any]:
    return {"name": name, "cat": "Node" if operator else "Session", "ts": ts, "dur": dur, "args": {"op_name": operator}}


def _run(ts: int, *, gemm: int, dur: int) -> list[dict[str, Any]]:
    # The runtime notes what is finished, so a call follows its operators.
    return [
        _event("g_kernel_time", ts + 1, gemm, "Gemm"),
        _event("r_kernel_time", ts + 1 + gemm, 2, "Relu"),
        _event("s_kernel_time", ts + 3 + gemm, 1, "Relu"),
        _event("model_run", ts, dur),
    ]


def test_the_quicker_half_of_the_last_steps_counts() -> None:
    events = [_event("session_initialization", 0, 90)]
    # Warm-up, then three steps, of which the second was interrupted.
    events += _run(100, gemm=50, dur=60) + _run(200, gemm=4, dur=10) + _run(300, gemm=80, dur=95)
    events += _run(400, gemm=6, dur=14)
    profile = _profile(events, steps=3, plain_s=20e-6)
    assert [(operator.name, operator.calls) for operator in profile.operators] == [("Gemm", 1.0), ("Relu", 2.0)]
    # (4 + 6) / 2 and 2 + 1 microseconds of (10 + 14) / 2.
    assert [operator.seconds for operator in profile.operators] == [pytest.approx(5e-6), pytest.approx(3e-6)]
    assert profile.step_s == pytest.approx(12e-6)
    assert profile.unaccounted_s == pytest.approx(4e-6)


@pytest.mark.parametrize(
    ("plain_s", "profiler_s"),
    [
        (9e-6, 3e-6),  # 12 us under the profiler, 9 without
        (2e-6, 4e-6),  # 4 us lie outside of operators: what the profiler adds within them stays theirs
        (13e-6, 0.0),
    ],
)
def test_the_profilers_notes_are_what_it_adds_outside_of_operators(plain_s: float, profiler_s: float) -> None:
    events = _run(200, gemm=4, dur=10) + _run(300, gemm=80, dur=95) + _run(400, gemm=6, dur=14)
    profile = _profile(events, steps=3, plain_s=plain_s)
    assert profile.profiler_s == pytest.approx(profiler_s)
    assert profile.unaccounted_s == pytest.approx(4e-6 - profiler_s)


def test_a_training_step_by_operator(normalised_bundle: Bundle) -> None:
    signature = normalised_bundle.signature
    inputs = [torch.ones(spec.sizes(8), dtype=getattr(torch, spec.dtype)) for spec in signature.train_step.inputs]
    profile = profile_onnx(normalised_bundle.path, signature, inputs, warm_up=2, steps=6)
    calls = Counter({operator.name: operator.calls for operator in profile.operators})
    # Two convolutions, and two that make the gradients of their weights.
    assert sum(count for name, count in calls.items() if name in {"Conv", "FusedConv"}) == 4
    assert all(count == int(count) for count in calls.values())
    assert 0 < sum(operator.seconds for operator in profile.operators) < profile.step_s
    seconds = [operator.seconds for operator in profile.operators]
    assert seconds == sorted(seconds, reverse=True)
