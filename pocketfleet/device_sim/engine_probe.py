"""The short probe that chooses a way of computing: each is timed on a few devices' first steps, the fastest taken.

Before a way is taken its updates are compared with the plainest way's. What was chosen, and why, is written into the
run's experiment.
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pocketfleet.device_sim.chunk_result import ChunkResult
from pocketfleet.device_sim.cohort import Cohort
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.device_sim.engine_plan import Way, chunk_size
from pocketfleet.device_sim.workers import ChunkTrainer, one_torch_thread
from pocketfleet.errors import InputError
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["Probed", "probe"]

# A probe's steps a device, and the devices of it that train one by one: a fraction of a second for LeNet.
_PROBED_STEPS, _PROBED_EACH = 3, 4
# Relative norm within which two ways' updates of the same devices agree in float32, and letters of a refusal's reason.
_ALIKE, _REASON_LETTERS = 1e-3, 160
# What a way must save to be taken in place of an earlier one: the clock of a shared machine is no better.
_WORTH = 0.85


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What the probe found.

    Attributes:
        way: the one to take.
        reason: what each way took, or why none was timed.
        step_s: of a device's step by that way, in seconds on one process; nan where none was timed.
    """

    way: Way
    reason: str
    step_s: float


def probe(
    ways: Sequence[Way],
    make_trainer: Callable[[Way], ChunkTrainer],
    data: DeviceData,
    weights: Weights,
    *,
    cohort: int,
    chunk: int,
    broadcast: Tensors,
    device_start: Tensors,
) -> Probed:
    """Time the ways; see the module.

    Args:
        ways: candidates, the plainest first.
        make_trainer: who trains in such a way; an ``InputError`` says that it cannot be.
        data: of the fleet.
        weights: of the untrained model.
        cohort: devices a round.
        chunk: devices a chunk at most.
        broadcast: the algorithm's, before the first round.
        device_start: a device's state before its first round.
    """
    seconds: dict[Way, float] = {}
    refused: dict[Way, str] = {}
    trained: dict[Way, Update] = {}
    for way in ways:
        work = _Work(weights=weights, broadcast=broadcast, device_start=device_start)
        few = _sample(data, _PROBED_EACH)
        try:
            with warnings.catch_warnings():
                # Torch's word for an operator that it maps by a loop.
                warnings.filterwarnings("error", message="There is a performance drop")
                trainer = make_trainer(way)
                part = work.train(trainer, few).part
                if way == ways[0] and part.num_updates == 0:
                    # The run itself will say what diverging means.
                    reason = "its first steps are not finite: nothing to compare"
                    return Probed(way=way, reason=reason, step_s=np.nan)
                trained[way] = part.result()
                _check_alike(trained[way], trained[ways[0]])
                sample = few if way.startswith("each") else _sample(data, chunk_size(way, chunk)(cohort))
                seconds[way] = work.step_seconds(trainer, sample)
        except (InputError, RuntimeError, ValueError, UserWarning) as exc:
            if way == ways[0]:
                raise
            refused[way] = str(exc).splitlines()[0][:_REASON_LETTERS]
    chosen = ways[0]
    for way, taken in seconds.items():
        if taken < _WORTH * seconds[chosen]:
            chosen = way
    return Probed(way=chosen, reason=_reason(seconds, refused), step_s=seconds[chosen])


def _sample(data: DeviceData, count: int) -> Cohort:
    devices = np.flatnonzero(data.num_training)[:count]
    steps = np.full(len(devices), _PROBED_STEPS)
    return Cohort.of_devices(devices.tolist(), steps=steps.tolist(), batch_seed=devices.tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What the probe's devices train from."""

    weights: Weights
    broadcast: Tensors
    device_start: Tensors

    def train(self, trainer: ChunkTrainer, cohort: Cohort) -> ChunkResult:
        count = len(cohort)
        states = {name: value.expand(count, *value.shape).contiguous() for name, value in self.device_start.items()}
        with one_torch_thread():
            return trainer.train_chunk(cohort, self.weights, self.broadcast, states)

    def step_seconds(self, trainer: ChunkTrainer, cohort: Cohort) -> float:
        """Seconds a device-step, of the second of two goes: the first pays for what is made once."""
        self.train(trainer, cohort)
        started_s = time.perf_counter()
        self.train(trainer, cohort)
        return (time.perf_counter() - started_s) / float(cohort.steps.sum())


def _check_alike(found: Update, expected: Update) -> None:
    """Raise ``ValueError`` where a way's update is another one than the first way's."""
    flat_found, flat_expected = (
        torch.cat([value.flatten() for value in update.delta.values()]) for update in (found, expected)
    )
    distance = float((flat_found - flat_expected).norm() / flat_expected.norm())
    if not distance < _ALIKE:
        raise ValueError(f"its update differs by {distance:.1e} of its norm")


def _reason(seconds: Mapping[Way, float], refused: Mapping[Way, str]) -> str:
    measured = [f"{way} {1e6 * taken:.0f} us a device-step" for way, taken in seconds.items()]
    return "; ".join([*measured, *(f"{way} not possible: {why}" for way, why in refused.items())])
