"""What both sides of a gate are given, and what eager PyTorch makes of it in ``float32`` and in ``float64``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from pocketfleet.errors import InputError
from pocketfleet.export.session import Session
from pocketfleet.training.client_optimizer import FIRST_MOMENT
from pocketfleet.training.draws import draw_key, normal, permutation
from pocketfleet.training.examples import Examples
from pocketfleet.training.train_step import Hyper, StepSettings, TrainState, hyper_tensors
from pocketfleet.training.weights import Tensors, Weights, all_finite

__all__ = [
    "GRADIENT_ZERO_RATIO",
    "ROUNDING",
    "SUM_ROUNDING",
    "Reference",
    "Trial",
    "gradients",
    "make_reference",
    "make_trial",
    "moved",
    "norm",
    "relative",
    "rounded_floor",
    "rounded_gradients",
    "take",
    "train",
    "weights_of",
]

# Below this share of the whole gradient a tensor's own norm is no measure.
GRADIENT_ZERO_RATIO = 1e-6
# Movements, losses and outputs are measured against at least this share of the whole.
ZERO_RATIO = 1e-2
# Where the strength of a term is zero or not given, the gate uses these, so that the term is seen to work.
_TRIAL_HYPER = {
    "learning_rate": 0.01,
    "momentum": 0.9,
    "weight_decay": 1e-3,
    "proximal_mu": 0.1,
    "max_norm": 1.0,
    "beta1": 0.9,
    "beta2": 0.999,
    "epsilon": 1e-8,
}
# Strengths at which a step is plain gradient descent, and a first moment the gradient.
_PLAIN_HYPER = {
    "momentum": 0.0,
    "weight_decay": 0.0,
    "proximal_mu": 0.0,
    "max_norm": 1e30,
    "beta1": 0.0,
    "beta2": 0.999,
    "epsilon": 1e-8,
}
# A loss this many times the largest before training is an explosion, which amplifies rounding, so that nothing could be
# compared. The learning rate is then halved, so many times at most (from 1e38, float32's largest, to below any in use).
_EXPLODED = 10.0
_HALVINGS = 160
# Starts that are rounded otherwise: float32's own rounding; and what a layer's sums add up to, since correct programs
# were seen to be 1e-6 to 3e-6 off where a rectifier's inputs are about 1.
ROUNDING, SUM_ROUNDING = 2.0**-23, 2.0**-19
_ROUNDED_STARTS, _ROUNDED_GRADIENTS = 4, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What both sides are given: a start, batches in order, and hyper-parameters."""

    settings: StepSettings
    start: TrainState
    batches: tuple[Examples, ...]
    sizes: tuple[int, ...]
    hyper: Hyper

    def plain(self, learning_rate: float) -> Hyper:
        """Hyper-parameters at which a step is plain gradient descent."""
        return hyper_tensors(self.settings, {**_PLAIN_HYPER, "learning_rate": learning_rate})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What eager PyTorch makes of a trial."""

    eager: Session
    # Learning rate at which a step shows the gradient best, and the step's end, by batch size.
    learning_rate: float
    after_one: Mapping[int, TrainState]
    # By batch size, how far each gradient is from float64's; ``None`` where the model does not run in float64.
    rounding: Mapping[int, Mapping[str, float] | None]
    losses: torch.Tensor
    end: TrainState
    floor: float


def make_trial(
    weights: Weights,
    examples: Examples,
    settings: StepSettings,
    hyper: Mapping[str, float],
    *,
    max_batch: int,
    steps: int,
) -> Trial:
    """A deterministic trial of ``steps`` batches; arguments as ``run_gate``'s."""
    order = permutation(draw_key(0, "gate_batches"), len(examples))
    batches = tuple(
        examples.take(torch.from_numpy(order[[(step * max_batch + i) % len(order) for i in range(max_batch)]]))
        for step in range(steps)
    )
    strengths = {name: hyper.get(name) or _TRIAL_HYPER[name] for name in settings.hyper_names}
    # A partial batch is what is left over at the end of an epoch: neither full nor half.
    sizes = {max_batch, max(1, max_batch * 5 // 8), 1}
    return Trial(
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


def take(batch: Examples, size: int) -> Examples:
    """The first ``size`` examples."""
    return Examples(batch.x[:size], batch.y[:size])


def train(session: Session, trial: Trial) -> tuple[torch.Tensor, TrainState]:
    """The losses, ``[steps]``, and the state after a session has taken the trial's steps."""
    state, losses = trial.start, []
    for step, batch in enumerate(trial.batches):
        loss, state = session.train_step(state, batch.x, batch.y, trial.hyper, dropout_seed=step)
        losses.append(loss)
    return torch.stack(losses), state


def make_reference(trial: Trial, eager: Session) -> tuple[Trial, Reference]:
    """Eager's side, and the trial at a learning rate at which eager training does not explode."""
    untrained = max(float(eager.evaluate(weights_of(trial.start), batch.x, batch.y)["loss"]) for batch in trial.batches)
    losses, end = train(eager, trial)
    for _ in range(_HALVINGS):
        if all_finite(end.trainable) and bool((losses <= _EXPLODED * max(untrained, float(losses[0]))).all()):
            break
        trial = replace(trial, hyper={**trial.hyper, "learning_rate": trial.hyper["learning_rate"] / 2})
        losses, end = train(eager, trial)
    if not all_finite(end.trainable) or not bool(losses.isfinite().all()):
        raise InputError(
            "training with PyTorch itself does not stay finite on the task's examples, at any learning rate: look at "
            "the loss (a logarithm of 0, a division by 0, a mean over no values) and at the examples (inf, nan, inputs "
            "that are not scaled)"
        )
    learning_rate = _telling_learning_rate(eager, trial)
    exact = _in_double(trial)
    after_one, rounding = {}, {}
    for size in trial.sizes:
        batch = take(trial.batches[0], size)
        try:
            after_one[size] = eager.train_step(trial.start, batch.x, batch.y, trial.plain(learning_rate))[1]
        except ValueError:
            # Batch normalisation refuses to train on a single value a channel.
            if size > 1:
                raise
            continue
        rounding[size] = _rounding(eager, trial, exact, after_one[size], learning_rate, size=size)
    return trial, Reference(
        eager=eager,
        learning_rate=learning_rate,
        after_one=after_one,
        rounding=rounding,
        losses=losses,
        end=end,
        floor=_noise_floor(eager, trial, end),
    )


def _telling_learning_rate(eager: Session, trial: Trial) -> float:
    """A power of two at which a step moves every tensor by about its own size, so that little of it is rounded off."""
    if _gradient_slot(trial.settings) is not None:
        return 1.0
    batch = trial.batches[0]
    after = eager.train_step(trial.start, batch.x, batch.y, trial.plain(1.0))[1]
    far = moves(after.trainable, trial.start.trainable)
    zero = max(norm(far) * GRADIENT_ZERO_RATIO, 1e-30)
    ratio = max(
        float(trial.start.trainable[name].double().norm()) / max(float(move.norm()), zero) for name, move in far.items()
    )
    return 2.0 ** min(max(math.ceil(math.log2(max(ratio, 1.0))), 0), 40)


def _gradient_slot(settings: StepSettings) -> str | None:
    """The slot that holds the gradient after one plain step from zero."""
    if settings.adaptive:
        return FIRST_MOMENT
    return "momentum" if settings.momentum else None


def gradients(after: TrainState, trial: Trial, learning_rate: float) -> Tensors:
    """The gradient that a plain step saw, in ``float64``."""
    slot, start = _gradient_slot(trial.settings), trial.start.trainable
    if slot is not None:
        return {name: after.optimizer_slots[f"{slot}/{name}"].double() for name in start}
    return {name: move / -learning_rate for name, move in moves(after.trainable, start).items()}


def _rounding(
    eager: Session, trial: Trial, exact: Trial, after: TrainState, learning_rate: float, *, size: int
) -> dict[str, float] | None:
    """By tensor, how far the gradient after a ``float32`` step is from that of a ``float64`` step."""
    batch = take(exact.batches[0], size)
    try:
        end = eager.train_step(exact.start, batch.x, batch.y, _doubled(trial.plain(learning_rate)))[1]
    except (RuntimeError, TypeError):
        return None
    return relative(
        gradients(after, trial, learning_rate),
        gradients(end, exact, learning_rate),
        zero_ratio=GRADIENT_ZERO_RATIO,
    )


def moves(after: Tensors, before: Tensors) -> Tensors:
    return {name: after[name].double() - before[name].double() for name in before}


def norm(tensors: Tensors) -> float:
    """Of all values together."""
    return math.sqrt(sum(float(value.square().sum()) for value in tensors.values()))


def relative(found: Tensors, expected: Tensors, *, zero_ratio: float = ZERO_RATIO) -> dict[str, float]:
    """By name, the norm of the difference relative to the expected norm, at least to ``zero_ratio`` of the whole's."""
    zero = max(zero_ratio * norm(expected), 1e-30)
    return {
        name: float((found[name] - value).norm()) / max(float(value.norm()), zero) for name, value in expected.items()
    }


def _floats(tensors: Tensors) -> Tensors:
    return {name: value for name, value in tensors.items() if value.is_floating_point()}


def moved(end: TrainState, start: TrainState) -> tuple[Tensors, Tensors]:
    """How far trainable tensors and floating-point buffers moved, apart: their scales have nothing in common."""
    return moves(end.trainable, start.trainable), moves(end.buffers, _floats(start.buffers))


def _noise_floor(eager: Session, trial: Trial, end: TrainState) -> float:
    """How far ``float32`` is from ``float64`` after the steps; 0 where the model does not run in ``float64``."""
    try:
        _, exact = train(eager, _in_double(trial))
    except (RuntimeError, TypeError):
        return 0.0
    return _distance(end, exact, trial)


def rounded_floor(trial: Trial, reference: Reference, *, rounding: float) -> float:
    """How far eager training ends from itself when it starts from weights that were rounded otherwise.

    The distance to ``float64`` is one draw of chance: a rectifier whose input lies within rounding of its kink sends a
    model one way or the other, and that path may have met none. This is the largest of a few draws.

    Args:
        trial: the batches.
        reference: eager's end.
        rounding: by what share each value is off, ``ROUNDING`` or ``SUM_ROUNDING``.
    """
    distances = []
    for draw in range(_ROUNDED_STARTS):
        _, end = train(reference.eager, _rounded_start(trial, draw, rounding=rounding))
        distances.append(_distance(reference.end, end, trial))
    return max(distances)


def rounded_gradients(trial: Trial, reference: Reference, *, size: int) -> dict[str, float]:
    """By tensor, how far eager's gradient is from itself at starts that are rounded otherwise: the largest of a few.

    A gradient jumps where a rectifier's input lies within rounding of its kink, or a pool's two largest values do. With
    a hundred thousand such inputs in a batch some do; then no two correct programs need agree.
    """
    batch = take(trial.batches[0], size)
    expected = gradients(reference.after_one[size], trial, reference.learning_rate)
    worst = dict.fromkeys(expected, 0.0)
    for draw in range(_ROUNDED_GRADIENTS):
        other = _rounded_start(trial, draw, rounding=SUM_ROUNDING)
        end = reference.eager.train_step(other.start, batch.x, batch.y, trial.plain(reference.learning_rate))[1]
        found = gradients(end, other, reference.learning_rate)
        for name, error in relative(found, expected, zero_ratio=GRADIENT_ZERO_RATIO).items():
            worst[name] = max(worst[name], error)
    return worst


def _rounded_start(trial: Trial, draw: int, *, rounding: float) -> Trial:
    """The trial from weights each value of which is off by a normal number times ``rounding`` of itself."""
    rounded = {}
    for index, (name, value) in enumerate(sorted(trial.start.trainable.items())):
        noise = torch.from_numpy(normal(draw_key(0, "gate_rounding", draw, index), value.numel())).reshape(value.shape)
        rounded[name] = (value * (1 + rounding * noise)).to(value.dtype)
    return replace(trial, start=replace(trial.start, trainable=rounded))


def _distance(end: TrainState, other: TrainState, trial: Trial) -> float:
    return max(
        error
        for found, expected in zip(moved(end, trial.start), moved(other, trial.start), strict=True)
        for error in (0.0, *relative(found, expected).values())
    )


def _doubled(tensors: Tensors) -> Tensors:
    return {name: value.double() if value.is_floating_point() else value for name, value in tensors.items()}


def _in_double(trial: Trial) -> Trial:
    start = trial.start
    return replace(
        trial,
        start=TrainState(
            trainable=_doubled(start.trainable),
            frozen=_doubled(start.frozen),
            buffers=_doubled(start.buffers),
            optimizer_slots=_doubled(start.optimizer_slots),
            anchor=_doubled(start.anchor),
            correction=_doubled(start.correction),
        ),
        batches=tuple(
            Examples(*(side.double() if side.is_floating_point() else side for side in (batch.x, batch.y)))
            for batch in trial.batches
        ),
        hyper=_doubled(trial.hyper),
    )


def weights_of(state: TrainState) -> Weights:
    """The weights in a state."""
    return Weights(trainable=state.trainable, buffers=state.buffers, frozen=state.frozen)
