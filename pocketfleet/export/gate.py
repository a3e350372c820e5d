"""No program leaves as a bundle before it has computed what eager PyTorch computes, on the files as written.

For each runtime, with the task's own examples:

1. *gradient*: of every trainable tensor, at the largest batch, a partial one and a single example, read from one
   ``train_step``: its first moment or momentum, which start at zero, or else how far the weights move at a learning
   rate that is a power of two. The norm of the difference, relative to the norm of the tensor's gradient or to ``1e-6``
   of the whole gradient's, whichever is larger, is within ``1e-4``. Some true gradients are zero (a bias before batch
   normalisation), and what is computed is rounding: where eager ``float32`` itself is further than ``1e-5`` from eager
   ``float64``, three times that distance, or ``1e-6`` of the whole gradient, is allowed. And a gradient jumps where a
   rectifier's input lies within rounding of its kink: where a gradient is off by less than 20 %, three times what
   eager's own moves by when weights are rounded otherwise (by ``2**-19``) is allowed.
2. *repeat*: the same call three times gives the same bits.
3. *buffers*: after one step within ``1e-5`` of their norm, at least of ``1e-2`` of all buffers'; integers exactly.
4. *steps* (20 unless told): how far each trainable tensor and buffer moved, and the losses, within three times the
   model's own noise floor, at least within ``1e-4``. The floor is how far eager ``float32`` ends from ``float64`` on
   the same batches; where that decides, the larger of it and how far ``float32`` ends from itself from starts that are
   rounded otherwise (where the first gradient jumps within rounding, by ``2**-19`` too).
   Every term of the step takes part, also those whose strength is zero by default. Dropout's masks are drawn alike.
5. *predict*, *evaluate*: with the weights trained in 4, within ``1e-5`` of eager with the same weights; and *learns*:
   predictions differ from those before training.
"""

import math
from collections.abc import Iterator, Mapping
from functools import partial

import torch

from pocketfleet.errors import InputError
from pocketfleet.export.gate_report import GateReport, GateRow
from pocketfleet.export.gate_trial import (
    GRADIENT_ZERO_RATIO,
    ROUNDING,
    SUM_ROUNDING,
    Reference,
    Trial,
    gradients,
    make_reference,
    make_trial,
    moved,
    norm,
    relative,
    rounded_floor,
    rounded_gradients,
    take,
    train,
    weights_of,
)
from pocketfleet.export.session import EagerSession, Session
from pocketfleet.training.examples import Examples
from pocketfleet.training.train_step import StepSettings, TrainState
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["STEPS", "run_gate"]

# Far above what correct float32 programs reach (1e-6 and less was measured for every packaged task), far below what
# a wrong operator causes (1e-2 and more).
GRADIENT_TOLERANCE = 1e-4
STEPS_TOLERANCE = 1e-4
SAME_WEIGHTS_TOLERANCE = 1e-5
STEPS = 20
NOISE_FACTOR = 3.0
# Further from float64 than this, a tensor's gradient is taken for rounding: float32's is 6e-8, sums magnify it.
ROUNDED = 1e-5
# No kink makes a gradient this wrong, as a share of its norm: one of a thousand inputs that goes the other way moves it
# by the root of that, 3 %. What is further off is a wrong operator.
KINKED = 0.2
# What rounding may come to, as a share of the whole gradient: ten times the rounding of float32.
ROUNDING_RATIO = 1e-6


def run_gate(
    sessions: Mapping[str, Session],
    eager: EagerSession,
    *,
    weights: Weights,
    examples: Examples,
    settings: StepSettings,
    hyper: Mapping[str, float],
    max_batch: int,
    steps: int = STEPS,
) -> GateReport:
    """Compare each session with eager PyTorch.

    Args:
        sessions: by runtime, over the files as written.
        eager: of the same task and settings.
        weights: the start.
        examples: at least one; reused where there are fewer than the steps need.
        settings: which terms the step has.
        hyper: strengths of the terms; the learning rate is halved until eager training does not explode.
        max_batch: the largest batch that the programs accept.
        steps: how many the programs must follow eager training, 1 or more.

    Raises:
        InputError: ``steps`` is below 1, or eager training itself does not stay finite at any learning rate.
    """
    if steps < 1:
        raise InputError(f"the gate needs 1 step or more, got {steps}")
    trial = make_trial(weights, examples, settings, hyper, max_batch=max_batch, steps=steps)
    trial, reference = make_reference(trial, eager)
    rows: list[GateRow] = []
    for runtime, session in sessions.items():
        rows += _check(runtime, session, trial, reference)
    return GateReport(tuple(rows))


def _check(runtime: str, session: Session, trial: Trial, reference: Reference) -> Iterator[GateRow]:
    row = partial(GateRow, runtime=runtime)
    for size in reference.after_one:
        yield from _check_one_step(row, session, trial, reference, size=size)
    yield from _check_repeat(row, session, trial)
    losses, end = train(session, trial)
    yield from _check_steps(row, losses, end, trial, reference)
    yield from _check_trained(row, session, end, trial, reference)


def _check_one_step(
    row: partial[GateRow], session: Session, trial: Trial, reference: Reference, *, size: int
) -> Iterator[GateRow]:
    batch, expected = take(trial.batches[0], size), reference.after_one[size]
    found = session.train_step(trial.start, batch.x, batch.y, trial.plain(reference.learning_rate))[1]
    pair = [gradients(end, trial, reference.learning_rate) for end in (found, expected)]
    errors = relative(*pair, zero_ratio=GRADIENT_ZERO_RATIO)
    allowed = _gradient_tolerances(pair[1], reference.rounding[size])
    # Only where it decides: it takes several eager steps.
    if any(allowed[name] < error < KINKED for name, error in errors.items()):
        own = _jumps(trial, reference, size=size)
        allowed = {name: max(allowed[name], min(NOISE_FACTOR * own[name], KINKED)) for name in allowed}
    for name, error in errors.items():
        yield row(check=f"gradient, batch {size}", tensor=name, error=error, tolerance=allowed[name])
    yield from _check_buffers(row, found, expected, check=f"buffers, batch {size}")


def _check_buffers(row: partial[GateRow], found: TrainState, expected: TrainState, *, check: str) -> Iterator[GateRow]:
    # Together: a mean that is zero but for rounding (after a layer of zero mean) is no measure of itself.
    errors = relative(*({name: value.double() for name, value in end.buffers.items()} for end in (found, expected)))
    for name, value in expected.buffers.items():
        exact = not value.is_floating_point()
        error = float(not torch.equal(found.buffers[name], value)) if exact else errors[name]
        yield row(check=check, tensor=name, error=error, tolerance=0.0 if exact else SAME_WEIGHTS_TOLERANCE)


def _gradient_tolerances(expected: Tensors, rounding: Mapping[str, float] | None) -> dict[str, float]:
    """By tensor, the relative error that is allowed: more than the rule only where eager's own gradient is rounding."""
    whole = max(norm(expected), 1e-30)
    allowed = {}
    for name, value in expected.items():
        allowed[name] = GRADIENT_TOLERANCE
        noise = math.inf if rounding is None else rounding[name]
        if noise > ROUNDED:
            share = ROUNDING_RATIO * whole / max(float(value.norm()), GRADIENT_ZERO_RATIO * whole)
            own = NOISE_FACTOR * noise if math.isfinite(noise) else 0.0
            allowed[name] = max(GRADIENT_TOLERANCE, own, share)
    return allowed


def _check_repeat(row: partial[GateRow], session: Session, trial: Trial) -> Iterator[GateRow]:
    batch = trial.batches[0]
    ends = [session.train_step(trial.start, batch.x, batch.y, trial.hyper)[1] for _ in range(3)]
    groups = [end.trainable | end.buffers | {f"slot {k}": v for k, v in end.optimizer_slots.items()} for end in ends]
    for name, first in groups[0].items():
        error = max(float((first - other[name]).abs().max()) for other in groups[1:])
        yield row(check="repeat", tensor=name, error=error, tolerance=0.0)


def _check_steps(
    row: partial[GateRow], losses: torch.Tensor, end: TrainState, trial: Trial, reference: Reference
) -> Iterator[GateRow]:
    errors = relative({"loss": losses.double()}, {"loss": reference.losses.double()})
    for found, wanted in zip(moved(end, trial.start), moved(reference.end, trial.start), strict=True):
        errors |= relative(found, wanted)
    tolerance = max(NOISE_FACTOR * reference.floor, STEPS_TOLERANCE)

    def decides() -> bool:
        return any(tolerance < error < math.inf for error in errors.values())

    # Only where it decides: it takes as long again as all of eager training.
    if decides():
        tolerance = max(tolerance, NOISE_FACTOR * rounded_floor(trial, reference, rounding=ROUNDING))
    if decides() and _kinked(trial, reference):
        tolerance = max(tolerance, NOISE_FACTOR * rounded_floor(trial, reference, rounding=SUM_ROUNDING))
    for name, error in errors.items():
        yield row(check=f"{len(trial.batches)} steps", tensor=name, error=error, tolerance=tolerance)


def _kinked(trial: Trial, reference: Reference) -> bool:
    """Whether the first gradient jumps within rounding."""
    return max(_jumps(trial, reference, size=max(reference.after_one)).values()) > GRADIENT_TOLERANCE


def _jumps(trial: Trial, reference: Reference, *, size: int) -> dict[str, float]:
    """``rounded_gradients``, but 0 where a gradient is nothing but rounding, which moves all the time."""
    noise = reference.rounding[size]
    jumps = rounded_gradients(trial, reference, size=size)
    return {name: 0.0 if noise is not None and noise[name] > ROUNDED else jump for name, jump in jumps.items()}


def _check_trained(
    row: partial[GateRow], session: Session, end: TrainState, trial: Trial, reference: Reference
) -> Iterator[GateRow]:
    """With weights that the session has trained: they go out of one program and into the others."""
    trained, eager = weights_of(end), reference.eager
    for size in trial.sizes:
        batch = take(trial.batches[-1], size)
        found, expected = session.predict(trained, batch.x), eager.predict(trained, batch.x)
        error = relative({"output": found.double()}, {"output": expected.double()})["output"]
        yield row(check=f"predict, batch {size}", tensor="output", error=error, tolerance=SAME_WEIGHTS_TOLERANCE)
        scores = session.evaluate(trained, batch.x, batch.y)
        for name, value in eager.evaluate(trained, batch.x, batch.y).items():
            # A score near zero is compared as if it were 1e-3: a mean of hits is often zero.
            error = abs(float(scores[name]) - float(value)) / max(abs(float(value)), 1e-3)
            yield row(check=f"evaluate, batch {size}", tensor=name, error=error, tolerance=SAME_WEIGHTS_TOLERANCE)
    x, before = trial.batches[-1].x, weights_of(trial.start)
    if not torch.equal(eager.predict(trained, x), eager.predict(before, x)):
        same = torch.equal(session.predict(trained, x), session.predict(before, x))
        yield row(check="predict learns", tensor="output", error=float(same), tolerance=0.0)
