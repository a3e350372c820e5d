"""No program leaves as a bundle before it has computed what eager PyTorch computes, on the files as written.

For each runtime, with the task's own examples:

1. *gradient*: of every trainable tensor, at the largest batch, a partial one and a single example, read from one
   ``train_step`` whose learning rate is a power of two. The norm of the difference, relative to the norm of the
   tensor's gradient or to ``1e-2`` of the whole gradient's, whichever is larger, is within ``1e-4``.
2. *repeat*: the same call three times gives the same bits.
3. *buffers*: after one step within ``1e-5``, integers exactly.
4. *20 steps*: how far each trainable tensor and buffer moved, and the losses, within three times the model's own
   noise floor (eager ``float32`` against eager ``float64`` on the same batches), at least within ``1e-4``. Every term
   of the step takes part, also those whose strength is zero by default.
5. *predict*, *evaluate*: with the weights trained in 4, within ``1e-5`` of eager with the same weights; and *learns*:
   predictions differ from those before training.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch

from pocketfleet.errors import InputError
from pocketfleet.export.gate_report import GateReport, GateRow
from pocketfleet.export.session import EagerSession, Session
from pocketfleet.training.draws import draw_key, normal, permutation
from pocketfleet.training.examples import Examples
from pocketfleet.training.train_step import Hyper, StepSettings, TrainState, hyper_tensors
from pocketfleet.training.weights import Tensors, Weights, all_finite

__all__ = ["run_gate"]

# Far above what correct float32 programs reach (1e-6 and less was measured for every packaged task), far below what
# a wrong operator causes (1e-2 and more).
GRADIENT_TOLERANCE = 1e-4
STEPS_TOLERANCE = 1e-4
SAME_WEIGHTS_TOLERANCE = 1e-5
STEPS = 20
NOISE_FACTOR = 3.0
# Some true gradients are zero (a bias before batch normalisation), and what is computed is rounding. Errors are taken
# relative to a tensor's norm, but at least to this share of the whole: what 1e-4 then allows is 1e-6 of the whole, ten
# times the rounding of float32.
ZERO_RATIO = 1e-2
# Where the strength of a term is zero or not given, the gate uses these, so that the term is seen to work.
_TRIAL_HYPER = {"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 1e-3, "proximal_mu": 0.1, "max_norm": 1.0}
# Strengths at which a step is plain gradient descent.
_PLAIN_HYPER = {"momentum": 0.0, "weight_decay": 0.0, "proximal_mu": 0.0, "max_norm": 1e30}
# A loss this many times the largest before training is an explosion, which amplifies rounding, so that nothing could be
# compared. The learning rate is then halved, so many times at most (from 1e38, float32's largest, to below any in use).
_EXPLODED = 10.0
_HALVINGS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """What both sides are given: a start, batches in order, and hyper-parameters."""

    settings: StepSettings
    start: TrainState
    batches: tuple[Examples, ...]
    sizes: tuple[int, ...]
    hyper: Hyper

    def plain(self, learning_rate: float) -> Hyper:
        return hyper_tensors(self.settings, {**_PLAIN_HYPER, "learning_rate": learning_rate})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reference:
    """What eager PyTorch makes of a trial."""

    eager: Session
    # Learning rate at which a step shows the gradient best, and the step's end, by batch size.
    learning_rate: float
    after_one: Mapping[int, TrainState]
    losses: torch.Tensor
    end: TrainState
    floor: float


def run_gate(
    sessions: Mapping[str, Session],
    eager: EagerSession,
    *,
    weights: Weights,
    examples: Examples,
    settings: StepSettings,
    hyper: Mapping[str, float],
    max_batch: int,
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

    Raises:
        InputError: eager training itself does not stay finite at any learning rate.
    """
    trial = _make_trial(weights, examples, settings, hyper, max_batch=max_batch)
    trial, reference = _make_reference(trial, eager)
    rows: list[GateRow] = []
    for runtime, session in sessions.items():
        rows += _check(runtime, session, trial, reference)
    return GateReport(tuple(rows))


def _make_trial(
    weights: Weights, examples: Examples, settings: StepSettings, hyper: Mapping[str, float], *, max_batch: int
) -> _Trial:
    order = permutation(draw_key(0, "gate_batches"), len(examples))
    batches = tuple(
        examples.take(torch.from_numpy(order[[(step * max_batch + i) % len(order) for i in range(max_batch)]]))
        for step in range(STEPS)
    )
    strengths = {name: hyper.get(name) or _TRIAL_HYPER[name] for name in settings.hyper_names}
    # A partial batch is what is left over at the end of an epoch: neither full nor half.
    sizes = {max_batch, max(1, max_batch * 5 // 8), 1}
    return _Trial(
        settings=settings,
        start=TrainState.start(weights, settings, correction=_corrections(weights) if settings.correction else None),
        batches=batches,
        sizes=tuple(sorted(sizes, reverse=True)),
        hyper=hyper_tensors(settings, strengths),
    )


def _corrections(weights: Weights) -> Tensors:
    """Small deterministic corrections, so that the term is seen to work."""
    return {
        name: torch.from_numpy(normal(draw_key(0, "gate_correction", index), value.numel()))
        .to(value.dtype)
        .reshape(value.shape)
        * 1e-3
        for index, (name, value) in enumerate(sorted(weights.trainable.items()))
    }


def _take(batch: Examples, size: int) -> Examples:
    return Examples(batch.x[:size], batch.y[:size])


def _train(session: Session, trial: _Trial) -> tuple[torch.Tensor, TrainState]:
    state, losses = trial.start, []
    for batch in trial.batches:
        loss, state = session.train_step(state, batch.x, batch.y, trial.hyper)
        losses.append(loss)
    return torch.stack(losses), state


def _make_reference(trial: _Trial, eager: Session) -> tuple[_Trial, _Reference]:
    """Eager's side, and the trial at a learning rate at which eager training does not explode."""
    untrained = max(float(eager.evaluate(_weights(trial.start), batch.x, batch.y)["loss"]) for batch in trial.batches)
    losses, end = _train(eager, trial)
    for _ in range(_HALVINGS):
        if all_finite(end.trainable) and bool((losses <= _EXPLODED * max(untrained, float(losses[0]))).all()):
            break
        trial = replace(trial, hyper={**trial.hyper, "learning_rate": trial.hyper["learning_rate"] / 2})
        losses, end = _train(eager, trial)
    if not all_finite(end.trainable) or not bool(losses.isfinite().all()):
        raise InputError(
            "training with PyTorch itself does not stay finite on the task's examples, at any learning rate: look at "
            "the loss (a logarithm of 0, a division by 0, a mean over no values) and at the examples (inf, nan, inputs "
            "that are not scaled)"
        )
    learning_rate = _telling_learning_rate(eager, trial)
    after_one = {}
    for size in trial.sizes:
        batch = _take(trial.batches[0], size)
        try:
            after_one[size] = eager.train_step(trial.start, batch.x, batch.y, trial.plain(learning_rate))[1]
        except ValueError:
            # Batch normalisation refuses to train on a single value a channel.
            if size > 1:
                raise
    return trial, _Reference(
        eager=eager,
        learning_rate=learning_rate,
        after_one=after_one,
        losses=losses,
        end=end,
        floor=_noise_floor(eager, trial, end),
    )


def _telling_learning_rate(eager: Session, trial: _Trial) -> float:
    """A power of two at which a step moves every tensor by about its own size, so that little of it is rounded off."""
    batch = trial.batches[0]
    after = eager.train_step(trial.start, batch.x, batch.y, trial.plain(1.0))[1]
    moves = _moves(after.trainable, trial.start.trainable)
    ratio = max(
        float(trial.start.trainable[name].double().norm()) / max(float(move.norm()), _zero(moves), 1e-30)
        for name, move in moves.items()
    )
    return 2.0 ** min(max(math.ceil(math.log2(max(ratio, 1.0))), 0), 40)


def _moves(after: Tensors, before: Tensors) -> Tensors:
    return {name: after[name].double() - before[name].double() for name in before}


def _zero(tensors: Tensors) -> float:
    """The norm that a tensor of the group is taken to have at least."""
    return ZERO_RATIO * math.sqrt(sum(float(value.square().sum()) for value in tensors.values()))


def _relative(found: Tensors, expected: Tensors) -> dict[str, float]:
    """By name, the norm of the difference relative to the expected norm."""
    zero = max(_zero(expected), 1e-30)
    return {
        name: float((found[name] - value).norm()) / max(float(value.norm()), zero) for name, value in expected.items()
    }


def _floats(tensors: Tensors) -> Tensors:
    return {name: value for name, value in tensors.items() if value.is_floating_point()}


def _moved(end: TrainState, start: TrainState) -> tuple[Tensors, Tensors]:
    """How far trainable tensors and floating-point buffers moved, apart: their scales have nothing in common."""
    return _moves(end.trainable, start.trainable), _moves(end.buffers, _floats(start.buffers))


def _noise_floor(eager: Session, trial: _Trial, end: TrainState) -> float:
    """How far ``float32`` is from ``float64`` after the steps; 0 where the model does not run in ``float64``."""
    try:
        _, exact = _train(eager, _in_double(trial))
    except (RuntimeError, TypeError):
        return 0.0
    return max(
        error
        for found, expected in zip(_moved(end, trial.start), _moved(exact, trial.start), strict=True)
        for error in (0.0, *_relative(found, expected).values())
    )


def _in_double(trial: _Trial) -> _Trial:
    def double(tensors: Tensors) -> Tensors:
        return {name: value.double() if value.is_floating_point() else value for name, value in tensors.items()}

    start = trial.start
    return replace(
        trial,
        start=TrainState(
            trainable=double(start.trainable),
            frozen=double(start.frozen),
            buffers=double(start.buffers),
            optimizer_slots=double(start.optimizer_slots),
            anchor=double(start.anchor),
            correction=double(start.correction),
        ),
        batches=tuple(
            Examples(*(side.double() if side.is_floating_point() else side for side in (batch.x, batch.y)))
            for batch in trial.batches
        ),
        hyper=double(trial.hyper),
    )


def _check(runtime: str, session: Session, trial: _Trial, reference: _Reference) -> Iterator[GateRow]:
    row = partial(GateRow, runtime=runtime)
    for size in reference.after_one:
        yield from _check_one_step(row, session, trial, reference, size=size)
    yield from _check_repeat(row, session, trial)
    losses, end = _train(session, trial)
    yield from _check_steps(row, losses, end, trial, reference)
    yield from _check_trained(row, session, end, trial, reference)


def _check_one_step(
    row: partial[GateRow], session: Session, trial: _Trial, reference: _Reference, *, size: int
) -> Iterator[GateRow]:
    batch, expected = _take(trial.batches[0], size), reference.after_one[size]
    found = session.train_step(trial.start, batch.x, batch.y, trial.plain(reference.learning_rate))[1]
    start = trial.start.trainable
    errors = _relative(_moves(found.trainable, start), _moves(expected.trainable, start))
    for name, error in errors.items():
        yield row(check=f"gradient, batch {size}", tensor=name, error=error, tolerance=GRADIENT_TOLERANCE)
    for name, value in expected.buffers.items():
        exact = not value.is_floating_point()
        error = _relative({name: found.buffers[name].double()}, {name: value.double()})[name]
        tolerance = 0.0 if exact else SAME_WEIGHTS_TOLERANCE
        yield row(check=f"buffers, batch {size}", tensor=name, error=error, tolerance=tolerance)


def _check_repeat(row: partial[GateRow], session: Session, trial: _Trial) -> Iterator[GateRow]:
    batch = trial.batches[0]
    ends = [session.train_step(trial.start, batch.x, batch.y, trial.hyper)[1] for _ in range(3)]
    for name, first in ends[0].trainable.items():
        error = max(float((first - end.trainable[name]).abs().max()) for end in ends[1:])
        yield row(check="repeat", tensor=name, error=error, tolerance=0.0)


def _check_steps(
    row: partial[GateRow], losses: torch.Tensor, end: TrainState, trial: _Trial, reference: _Reference
) -> Iterator[GateRow]:
    tolerance = max(NOISE_FACTOR * reference.floor, STEPS_TOLERANCE)
    expected = _moved(reference.end, trial.start)
    for found, wanted in zip(_moved(end, trial.start), expected, strict=True):
        for name, error in _relative(found, wanted).items():
            yield row(check=f"{STEPS} steps", tensor=name, error=error, tolerance=tolerance)
    error = _relative({"loss": losses.double()}, {"loss": reference.losses.double()})["loss"]
    yield row(check=f"{STEPS} steps", tensor="loss", error=error, tolerance=tolerance)


def _weights(state: TrainState) -> Weights:
    return Weights(trainable=state.trainable, buffers=state.buffers, frozen=state.frozen)


def _check_trained(
    row: partial[GateRow], session: Session, end: TrainState, trial: _Trial, reference: _Reference
) -> Iterator[GateRow]:
    """With weights that the session has trained: they go out of one program and into the others."""
    trained, eager = _weights(end), reference.eager
    for size in trial.sizes:
        batch = _take(trial.batches[-1], size)
        found, expected = session.predict(trained, batch.x), eager.predict(trained, batch.x)
        error = _relative({"output": found.double()}, {"output": expected.double()})["output"]
        yield row(check=f"predict, batch {size}", tensor="output", error=error, tolerance=SAME_WEIGHTS_TOLERANCE)
        scores = session.evaluate(trained, batch.x, batch.y)
        for name, value in eager.evaluate(trained, batch.x, batch.y).items():
            # A score near zero is compared as if it were 1e-3: a mean of hits is often zero.
            error = abs(float(scores[name]) - float(value)) / max(abs(float(value)), 1e-3)
            yield row(check=f"evaluate, batch {size}", tensor=name, error=error, tolerance=SAME_WEIGHTS_TOLERANCE)
    x, before = trial.batches[-1].x, _weights(trial.start)
    if not torch.equal(eager.predict(trained, x), eager.predict(before, x)):
        same = torch.equal(session.predict(trained, x), session.predict(before, x))
        yield row(check="predict learns", tensor="output", error=float(same), tolerance=0.0)
