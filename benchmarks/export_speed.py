"""How long an exported training step takes against eager PyTorch's, on both runtimes, in one run on one thread.

The three programs are those of the benchmark suite: a multilayer perceptron, LeNet-5 and a two-layer character
transformer, all at their largest batch. Blocks of steps by eager, ExecuTorch and ONNX Runtime take turns, so that
whatever else the machine does meets all three; medians are compared. Each runtime's losses must be eager's, step by
step.

Usage: python benchmarks/export_speed.py [--seconds 3]
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from pocketfleet.device_sim.bench_suite import export_workload, make_task
from pocketfleet.export.executorch import limit_threads
from pocketfleet.export.session import EagerSession, Session, open_session
from pocketfleet.training.task import initial_model
from pocketfleet.training.train_step import TrainState, hyper_tensors

# Step time over eager's that each runtime is to stay under.
TARGETS = {
    "mlp": {"executorch": 0.8, "onnx": 0.4},
    "lenet": {"executorch": 6.0, "onnx": 1.5},
    "char-transformer": {"executorch": 6.0, "onnx": 1.2},
}
# Steps by one of the three before the next one's turn.
BLOCK = 10
# Losses of a few steps: rounding has not yet drifted apart.
CHECKED_STEPS = 5
TOLERANCE = 1e-4


def losses(session: Session, state: TrainState, rest: tuple[object, ...]) -> list[float]:
    """The losses of some steps, each from the state that the last one left."""
    found = []
    for _ in range(CHECKED_STEPS):
        loss, state = session.train_step(state, *rest)
        found.append(float(loss))
    return found


def interleaved_s(steps: dict[str, Callable[[], object]], *, least_s: float) -> dict[str, float]:
    """Median seconds of each step, their blocks taking turns until ``least_s`` have passed, a first turn left out."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    started_s = None
    while started_s is None or time.perf_counter() - started_s < least_s:
        for name, step in steps.items():
            for _ in range(BLOCK):
                before_s = time.perf_counter()
                step()
                if started_s is not None:
                    seconds[name].append(time.perf_counter() - before_s)
        started_s = started_s or time.perf_counter()
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(workload: str, *, least_s: float, folder: Path) -> list[dict[str, object]]:
    """A row a runtime."""
    task = make_task(suite="v1", workload=workload)
    bundle = export_workload("v1", workload, out=folder / workload)
    sessions: dict[str, Session] = {"eager": EagerSession(task, initial_model(task, seed=0), bundle.settings)}
    sessions |= {runtime: open_session(bundle, runtime) for runtime in ("executorch", "onnx")}
    state = TrainState.start(bundle.weights(), bundle.settings)
    batch = task.train_examples().take(torch.arange(bundle.max_batch))
    rest = (batch.x, batch.y, hyper_tensors(bundle.settings, bundle.hyper))
    expected = losses(sessions["eager"], state, rest)
    for runtime in TARGETS[workload]:
        for own, eager in zip(losses(sessions[runtime], state, rest), expected, strict=True):
            assert abs(own - eager) <= TOLERANCE * abs(eager), f"{workload} on {runtime}: loss {own}, eager {eager}"
    steps = {name: lambda session=session: session.train_step(state, *rest) for name, session in sessions.items()}
    seconds = interleaved_s(steps, least_s=least_s)
    return [
        {
            "workload": workload,
            "runtime": runtime,
            "eager_s": seconds["eager"],
            "step_s": seconds[runtime],
            "ratio": seconds[runtime] / seconds["eager"],
            "target": target,
            "met": seconds[runtime] <= target * seconds["eager"],
        }
        for runtime, target in TARGETS[workload].items()
    ]


def main() -> None:
    """Print one row a workload and runtime."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing a workload at least")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    limit_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for name in TARGETS for row in measure(name, least_s=arguments.seconds, folder=Path(folder))]
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3g}".format))
    print(f"ratios to eager PyTorch of one run, one thread; load average {os.getloadavg()[0]:.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
