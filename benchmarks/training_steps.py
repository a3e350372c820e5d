"""Whole training steps of the tests' families of models on this machine, as measurements for ``pocketfleet calibrate``.

The shortest of many steps counts, and of several passes over all bundles: other work on the machine only adds.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import nn

from pocketfleet.device_sim.bench_inputs import step_inputs
from pocketfleet.device_sim.bench_measurement import grouped_work
from pocketfleet.device_sim.measurement import Measurement
from pocketfleet.export import Bundle, export_bundle
from pocketfleet.export.session import Runtime, open_session

# The models are the tests'.
sys.path.append(str(Path(__file__).parents[1]))
from tests.export.families import FAMILIES, Family
from tests.export.families.family import class_loss, normals, seeded

MAX_BATCH = 16
BATCHES = (4, MAX_BATCH)
# The same model in two variants: held out together.
MODELS = {
    "char_gru": "char_rnn",
    "char_lstm": "char_rnn",
    "char_transformer_tied": "char_transformer",
    "char_transformer_untied": "char_transformer",
}
# A model of one product, which is of no family: what a step costs at least. It is in every fit.
LEAST = Family(
    name="least",
    what="two weights and two biases",
    make_model=lambda: nn.Linear(1, 2),
    make_batch=lambda count: (normals(count, 1), normals(count).gt(0.0).long()),
    loss=class_loss,
)
# Enough that every kernel has been called and every page touched.
WARM_UP = 3
# The gate has its own tests; here it need only say that the programs run.
GATE_STEPS = 2


def bundles(folder: Path) -> Iterator[tuple[str, Bundle]]:
    """Names and bundles; those that ``folder`` lacks are exported into it."""
    for family in (LEAST, *FAMILIES.values()):
        path = folder / family.name
        if family.slow:
            continue
        if not path.exists():
            print(f"exporting {family.name}", file=sys.stderr)
            batch = family.make_batch(MAX_BATCH)
            export_bundle(seeded(family.make_model), family.loss, batch, out=path, gate_steps=GATE_STEPS)
        yield family.name, Bundle.load(path)


def shortest_s(call: Callable[[], object], *, budget_s: float) -> float:
    """The fastest call within a time budget."""
    for _ in range(WARM_UP):
        call()
    best, started_s = math.inf, time.perf_counter()
    while best == math.inf or time.perf_counter() - started_s < budget_s:
        before_s = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - before_s)
    return best


def measure_steps(
    name: str, bundle: Bundle, *, peak_flops: float, memory_bytes_per_s: float, budget_s: float
) -> Iterator[Measurement]:
    """Every runtime and batch size of a bundle, on one thread."""
    runtimes: tuple[Runtime, ...] = ("executorch", "onnx")
    for runtime in runtimes:
        session, footprint = open_session(bundle, runtime), bundle.footprint(runtime)
        for batch in BATCHES:
            inputs, weights = step_inputs(bundle, batch=batch), bundle.weights()
            loss = inputs.run(session)
            assert math.isfinite(loss), f"{name} on {runtime}: the loss is {loss}"
            yield Measurement(
                name=f"{name}/{runtime}/{batch}",
                phone="host",
                runtime=runtime,
                scope="step",
                model="" if name == LEAST.name else MODELS.get(name, name),
                threads=1,
                seconds=shortest_s(lambda: inputs.run(session), budget_s=budget_s),  # noqa: B023 - called at once
                peak_flops=peak_flops,
                parallel_peak_flops=peak_flops,
                memory_bytes_per_s=memory_bytes_per_s,
                inference_flops=sum(operator.flops for operator in footprint.at("predict", batch=batch)),
                inference_s=shortest_s(
                    lambda: session.predict(weights, inputs.x),  # noqa: B023 - the same
                    budget_s=budget_s / 2,
                ),
                work=grouped_work(footprint.at("train_step", batch=batch)),
            )
            assert math.isclose(inputs.run(session), loss, rel_tol=1e-4), f"{name} on {runtime}: another loss"
