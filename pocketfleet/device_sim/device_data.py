"""Which examples each device of a fleet holds: those it trains on and those it holds out.

Where data arrives with use (``arrival``), a device's examples arrive in the order in which they are listed here, and
what it holds at a time is a run of that order; every fifth of the order is held out. Where all is there from the start,
which fifth is held out is drawn.
"""

from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pocketfleet.training.device_rows import DeviceRows, ListedRows, PaddedRows, padded
from pocketfleet.training.examples import Examples
from pocketfleet.training.feature_scaling import FeatureSums, frozen_scaling, has_scaling
from pocketfleet.training.partition import HELD_OUT_ONE_IN, held_out_split, held_out_splits, partition
from pocketfleet.training.task import Task, task_examples, user_examples
from pocketfleet.training.weights import Tensors

__all__ = ["DeviceData", "HeldExamples"]

Rows = npt.NDArray[np.int64]


class HeldExamples(Protocol):
    """What a client asks of examples: ``DeviceData``, or one device's own (``own_examples``)."""

    def training(self, device: int, present: range | None = None) -> Examples:
        """The examples that a device trains on."""
        ...

    def held_out(self, device: int, present: range | None = None) -> Examples:
        """The examples that a device measures its models on."""
        ...


class DeviceData:
    """Examples by device; a function of the task, the partition and the seed, so that any process can rebuild it.

    Attributes:
        examples: of the whole fleet, perhaps mapped from disk; the rows below are of these.
        test: examples that no device holds.
        num_training: how many examples each device trains on once all are there, ``int64 [devices]``.
        num_held_out: how many it measures its models on, likewise.
    """

    def __init__(
        self,
        task: Task,
        *,
        kind: str,
        devices: int,
        seed: int,
        alpha: float,
        examples_per_device: int,
        arrives: bool = False,
    ) -> None:
        """See ``training.partition``; ``kind = "natural"`` asks the task for its users' examples.

        ``arrives``: the examples come one after another, and a device may hold a part of them.
        """
        self.test = task_examples(task, "test")
        self._seed = seed
        self._arrives = arrives
        self._rows: DeviceRows
        if kind == "natural":
            users = user_examples(task, devices)
            self.examples = users.examples
            self._rows = ListedRows(users.offsets[: devices + 1])
        else:
            self.examples = task_examples(task, "train")
            self._rows = partition(
                kind,
                self.examples.y.numpy(),
                devices=devices,
                seed=seed,
                alpha=alpha,
                examples_per_device=examples_per_device,
            )
        count = self._rows.sizes()
        self.num_held_out = count // HELD_OUT_ONE_IN
        self.num_training = count - self.num_held_out

    def training(self, device: int, present: range | None = None) -> Examples:
        """The examples that a device trains on.

        Args:
            device: dense index.
            present: places of those it holds, in order of arrival; ``None``: all. Unused where all are there from the
                start.
        """
        return self.examples.take(torch.from_numpy(self._split(device, present, "training")))

    def held_out(self, device: int, present: range | None = None) -> Examples:
        """The examples that a device measures its models on, none of fewer than five; ``present`` as above."""
        return self.examples.take(torch.from_numpy(self._split(device, present, "held_out")))

    def splits(self, devices: Rows, first_example: Rows, num_present: Rows) -> tuple[PaddedRows, PaddedRows]:
        """Rows of ``examples`` that several devices train on and those they hold out, as ``device_rows`` pads them.

        Args:
            devices: dense indices ``[k]``.
            first_example: the first that each holds, in order of arrival, ``[k]``.
            num_present: how many it holds, ``[k]``; both are unused where all are there from the start.
        """
        if not self._arrives:
            return held_out_splits(self._rows.many(devices), seed=self._seed, devices=devices)
        ranges = [range(first, first + held) for first, held in zip(first_example, num_present, strict=True)]
        pairs = list(zip(devices.tolist(), ranges, strict=True))
        training, held_out = (
            [self._split(device, present, part) for device, present in pairs] for part in ("training", "held_out")
        )
        return padded(training), padded(held_out)

    def _split(self, device: int, present: range | None, part: Literal["training", "held_out"]) -> Rows:
        rows = self._rows[device]
        if not self._arrives:
            training, held_out = held_out_split(rows, seed=self._seed, device=device)
            return training if part == "training" else held_out
        place = np.arange(len(rows))
        if present is not None:
            place = place[present.start : present.stop]
        wanted = (place % HELD_OUT_ONE_IN == HELD_OUT_ONE_IN - 1) == (part == "held_out")
        chosen: Rows = rows[place[wanted]]
        return chosen

    def scaling(self, model: nn.Module) -> Tensors:
        """Mean and scale for the model's ``FeatureScaling`` layers from per-device sums; empty without such layers."""
        if not has_scaling(model):
            return {}
        with_examples = np.flatnonzero(self.num_training)
        return frozen_scaling(model, (FeatureSums.of(self.training(int(device)).x) for device in with_examples))
