"""Where the time of an ExecuTorch training step goes, by operator, as the runtime's own event trace (ETDump) says.

1. One instruction is one event ``OPERATOR_CALL``; inside it, a kernel of an operator leaves ``native_call_<operator>``.
2. An instruction's time is its ``OPERATOR_CALL``'s, under its kernel's name. Instructions without a kernel's event
   (arithmetic on sizes, views) go by ``shapes``.
3. The step is ``Method::execute``: all instructions and what the runtime does between them, without Python's binding.

Tried with executorch 1.5.1: ``executorch.extension.pybindings.portable_lib._load_for_executorch_from_buffer``.
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from pocketfleet.export.executorch import one_thread
from pocketfleet.export.operator_time import OperatorTime, StepProfile
from pocketfleet.export.quiet import quiet_export, quiet_stderr

__all__ = ["profile_executorch"]

_STEP = "Method::execute"
_INSTRUCTION = "OPERATOR_CALL"
_KERNEL = "native_call_"
# One method call is one block of events by this name.
_CALL = "Execute"
_NAMELESS = "shapes"


def profile_executorch(path: Path, inputs: list[torch.Tensor], *, warm_up: int, steps: int) -> StepProfile:
    """Profile ``train_step`` of the file at ``path`` on one thread.

    Args:
        path: a ``.pte`` file.
        inputs: of ``train_step``, contiguous, in the order of its signature.
        warm_up: steps before the profiled ones.
        steps: profiled steps, at least 1.

    Raises:
        ValueError: ``steps`` is less than 1, or ``warm_up`` less than 0.
    """
    if steps < 1 or warm_up < 0:
        raise ValueError(f"steps must be 1 or more and warm_up 0 or more, got {steps} and {warm_up}")
    with one_thread(), quiet_export():
        calls = _blocks(_trace(path.read_bytes(), inputs, calls=warm_up + steps))[warm_up:]
    # A short trace would make every mean wrong.
    assert len(calls) == steps, f"{len(calls)} steps were traced, {steps} were made"
    step_s = sum(_seconds(event) for events in calls for event in events if event.name == _STEP) / steps
    return StepProfile(operators=_operator_times(calls), step_s=step_s)


def _trace(program: bytes, inputs: list[torch.Tensor], *, calls: int) -> bytes:
    """The event trace of ``calls`` training steps."""
    with quiet_stderr():
        from executorch.extension.pybindings.portable_lib import _load_for_executorch_from_buffer

    # The module reads the program where it lies: ``program`` must outlive it, and does as an argument.
    module = _load_for_executorch_from_buffer(program, None, enable_etdump=True)
    for _ in range(calls):
        module.run_method("train_step", inputs)
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "trace.etdp"
        module.write_etdump_result_to_file(str(dump))
        return dump.read_bytes()


def _blocks(trace: bytes) -> list[list[Any]]:
    """The events of each method call, in order."""
    from executorch.devtools.etdump.serialize import deserialize_from_etdump_flatcc

    runs = deserialize_from_etdump_flatcc(trace).run_data
    return [
        [event.profile_event for event in run.events if event.profile_event is not None]
        for run in runs
        if run.name == _CALL
    ]


def _seconds(event: Any) -> float:  # noqa: ANN401 - a profile event
    # Ticks are nanoseconds.
    return float(event.end_time - event.start_time) * 1e-9


def _instructions(events: Iterable[Any]) -> Iterator[tuple[str, float]]:
    """Rules 1 and 2; a kernel's event precedes that of the instruction around it."""
    name = _NAMELESS
    for event in events:
        if event.name.startswith(_KERNEL):
            name = event.name.removeprefix(_KERNEL).partition(".")[0]
        elif event.name == _INSTRUCTION:
            yield name, _seconds(event)
            name = _NAMELESS


def _operator_times(calls: list[list[Any]]) -> tuple[OperatorTime, ...]:
    durations: dict[str, list[float]] = defaultdict(list)
    for name, seconds in (instruction for events in calls for instruction in _instructions(events)):
        durations[name].append(seconds)
    times = [
        OperatorTime(name=name, calls=len(values) / len(calls), seconds=sum(values) / len(calls))
        for name, values in durations.items()
    ]
    return tuple(sorted(times, key=lambda operator: -operator.seconds))
