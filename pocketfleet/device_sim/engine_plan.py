"""How the host computes a cohort, and the short probe that chooses it.

Ways, each the same arithmetic up to rounding:

1. ``each``: device by device, eager PyTorch.
2. ``each_channels_last``: likewise, with the channels of images innermost in memory, which convolutions like.
3. ``each_onnx``: likewise, by the exported ONNX program.
4. ``batched``: many devices at once, ``batched_client``.
5. ``batched_unfolded``: likewise, convolutions as products of matrices.

``auto`` times each way that the model allows on a few devices' first steps and takes the fastest. What was chosen, and
why, is written into the run's experiment: hashes hold for a way and its chunks.
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn

from pocketfleet.device_sim.chunk_result import ChunkResult
from pocketfleet.device_sim.cohort import Cohort, one_by_one_chunk
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.device_sim.workers import ChunkTrainer, one_torch_thread
from pocketfleet.errors import InputError
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["DEFAULT_CHUNK", "EnginePlan", "Way", "candidates", "chunk_size", "probe"]

Way = Literal["each", "each_channels_last", "each_onnx", "batched", "batched_unfolded"]
# Devices a chunk: from some hundred on, the cost of calling torch is small beside the arithmetic's, and 256 states of a
# small model still fit a core's cache (measured on the multilayer perceptron 13-64-32-1: 128 and 1,024 are slower).
DEFAULT_CHUNK = 256
# Fewer devices than that leave a core idle on the smaller half of a cohort for longer than mapping saves.
_LEAST_CHUNK = 32
# Below so many devices a round, mapping them saves less than the probe takes.
_LEAST_COHORT = 8
# A probe's steps a device, and the devices of it that train one by one: a fraction of a second for LeNet.
_PROBED_STEPS, _PROBED_EACH = 3, 4
# Relative norm within which two ways' updates of the same devices agree in float32, and letters of a refusal's reason.
_ALIKE, _REASON_LETTERS = 1e-3, 160
# What a way must save to be taken in place of an earlier one: the clock of a shared machine is no better.
_WORTH = 0.85


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """A way, its chunk, and why."""

    way: Way
    chunk: int
    reason: str


def chunk_size(way: Way, chunk: int) -> Callable[[int], int]:
    """Devices a chunk, of a cohort of so many; the number of processes has no say (see ``cohort``)."""
    if way.startswith("each"):
        return one_by_one_chunk
    # Halves at least, so that two processes have one each.
    return lambda devices: max(1, min(chunk, max(_LEAST_CHUNK, -(-devices // 2))))


def candidates(model: nn.Module, *, cohort: int, onnx: bool) -> tuple[Way, ...]:
    """The ways worth a try for a model, the plainest first."""
    convolves = any(isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) for module in model.modules())
    images = any(isinstance(module, nn.Conv2d) for module in model.modules())
    wanted = {
        "each": True,
        "each_channels_last": images,
        "each_onnx": convolves and onnx,
        "batched": cohort >= _LEAST_COHORT,
        "batched_unfolded": images and cohort >= _LEAST_COHORT,
    }
    return tuple(way for way in get_args(Way) if wanted[way])


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
) -> EnginePlan:
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
    if len(ways) == 1:
        return EnginePlan(way=ways[0], chunk=chunk, reason=f"{cohort} devices a round: too few to map")
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
                    return EnginePlan(way=way, chunk=chunk, reason="its first steps are not finite: nothing to compare")
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
    return EnginePlan(way=chosen, chunk=chunk, reason=_reason(seconds, refused))


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
