"""What a round asks of each device, by the examples that it holds."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.arrival import Arrival, Held
from pocketfleet.training.batches import steps_of_epochs

__all__ = ["Workload"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a round asks of each device.

    Attributes:
        num_training: examples each device trains on, ``[devices]``.
        steps: steps each device is asked for, ``[devices]``.
        num_examples: all that each device holds, ``[devices]``; ``None``: those it trains on.
        arrival: says what each device holds at a time; ``None``: all, from the start.
        epochs: with an arrival, passes over the training examples present, in place of ``steps``; 0: ``steps``.
        step_s: seconds a step takes on each device, ``[devices]``.
        batch_size: examples a step.
        training_memory_bytes: planned by the program.
        bundle_bytes: programs, manifest and frozen weights; downloaded once.
        weights_bytes: one model version; downloaded for each attempt; one for all or ``[devices]``.
        update_bytes: one encoded update; likewise.
        partial_work: whether interrupted training is reported.
    """

    num_training: Int64s
    steps: Int64s
    step_s: Floats
    batch_size: int
    training_memory_bytes: int
    bundle_bytes: int
    weights_bytes: int | Int64s
    update_bytes: int | Int64s
    partial_work: bool
    num_examples: Int64s | None = None
    arrival: Arrival | None = None
    epochs: int = 0

    def may_hold(self, device: Int64s, num_examples: int) -> Bools:
        """Whether devices hold so many examples at all, some day, ``[n]``."""
        may: Bools = (self._all_of(device) >= num_examples) & (self.num_training[device] > 0)
        return may

    def hold(self, device: Int64s, at_s: Floats, num_examples: int) -> Bools:
        """Whether devices hold so many examples at ``at_s``, and some to train on, ``[n]``."""
        if self.arrival is None:
            return self.may_hold(device, num_examples)
        held = self.arrival.held(device, at_s)
        hold: Bools = (held.num_present >= num_examples) & (held.num_training > 0)
        return hold

    def wanted(self, device: Int64s, at_s: Floats) -> tuple[Held, Int64s, Int64s]:
        """What devices hold at ``at_s``, how many of these examples train, and for how many steps, ``[n]`` each."""
        if self.arrival is None:
            everything = Held(first_example=np.zeros_like(device), num_present=self._all_of(device))
            return everything, self.num_training[device], self.steps[device]
        held = self.arrival.held(device, at_s)
        if not self.epochs:
            return held, held.num_training, self.steps[device]
        steps = steps_of_epochs(held.num_training, epochs=self.epochs, batch_size=self.batch_size)
        return held, held.num_training, steps

    def moved_bytes(self, device: Int64s) -> tuple[Floats, Floats]:
        """What devices download of a model, and what they upload, ``[n]`` each."""
        devices = len(self.num_training)
        down, up = (np.broadcast_to(size, devices)[device] for size in (self.weights_bytes, self.update_bytes))
        return down.astype(np.float64), up.astype(np.float64)

    def _all_of(self, device: Int64s) -> Int64s:
        column = self.num_training if self.num_examples is None else self.num_examples
        held: Int64s = column[device]
        return held
