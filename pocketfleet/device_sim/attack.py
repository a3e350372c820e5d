"""Which devices attack the training, and what they do instead of what they were asked.

Kinds:

1. ``sign_flip``: reports the delta backwards, ``-scale`` times what it learnt (after the sign-flipping of Li et
   al. 2019, "RSA", arXiv:1811.03761).
2. ``scaled``: reports ``scale`` times what it learnt (the boosting of Sun et al. 2019, arXiv:1911.07963).
3. ``label_flip``: trains on class ``classes - 1 - y`` in place of ``y`` (as in Fang et al. 2020, arXiv:1911.11815) and
   reports ``scale`` times what it learnt.
4. ``nan``: reports a delta without a number in it.

Only the delta is changed: batch-norm statistics, what an algorithm reports beside the delta, the loss and the number of
examples are reported as they are. An attacker is a phone like any other: it may be slow, be picked up, or never be
asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import torch

from pocketfleet.errors import InputError
from pocketfleet.training.draws import draw_key, uniform
from pocketfleet.training.examples import Examples
from pocketfleet.training.update import Update

__all__ = ["Attack", "AttackKind", "Attackers", "num_classes"]


class AttackKind(StrEnum):
    """What an attacker does; see the module."""

    SIGN_FLIP = "sign_flip"
    SCALED = "scaled"
    LABEL_FLIP = "label_flip"
    NAN = "nan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """Some devices' attack: ``devices``, or of each device with probability ``ratio``."""

    kind: AttackKind
    ratio: float = 0.0
    devices: tuple[int, ...] = ()
    scale: float = 1.0

    @property
    def factor(self) -> float:
        """What the delta is multiplied with."""
        return {AttackKind.SIGN_FLIP: -self.scale, AttackKind.NAN: float("nan")}.get(self.kind, self.scale)


class Attackers:
    """The attackers of a fleet, as columns over all devices.

    Attributes:
        word: what each does, ``""`` if it is honest.
    """

    def __init__(self, attacks: Sequence[Attack], *, devices: int, seed: int, classes: int = 0) -> None:
        """Draw who attacks: one number a device, so that one more device changes nobody's part.

        Args:
            attacks: devices that one names are not drawn by another. Ratios sum to 1 at most.
            devices: the fleet's size.
            seed: the experiment's.
            classes: of the task; needed by ``label_flip`` alone.
        """
        drawn = uniform(draw_key(seed, "attack", np.arange(devices)), 1)[:, 0]
        # The attack of each device; the last one is honesty.
        part = np.full(devices, len(attacks))
        lower = 0.0
        for number, attack in enumerate(attacks):
            upper = lower + attack.ratio
            part[(lower <= drawn) & (drawn < upper)] = number
            lower = upper
        for number, attack in enumerate(attacks):
            part[list(attack.devices)] = number
        self.word = np.array([*(attack.kind.value for attack in attacks), ""], dtype=object)[part]
        self._factor = np.array([*(attack.factor for attack in attacks), 1.0])[part]
        self._flips = np.array([*(attack.kind is AttackKind.LABEL_FLIP for attack in attacks), False])[part]
        self._classes = classes

    def reported(self, updates: Update, devices: npt.NDArray[np.int64]) -> Update:
        """What the devices report in place of their updates.

        Args:
            updates: what they learnt, tensors stacked, ``[k, ...]`` each; they stay as they are.
            devices: ``[k]``.
        """
        factor = self._factor[devices]
        if bool((factor == 1.0).all()):
            return updates
        return replace(updates, delta={name: _times(value, factor) for name, value in updates.delta.items()})

    def examples(self, examples: Examples, device: int) -> Examples:
        """What one device trains on in place of its examples."""
        y = self.targets(examples.y.unsqueeze(0), np.array([device])).squeeze(0)
        return Examples(examples.x, y)

    def targets(self, y: torch.Tensor, devices: npt.NDArray[np.int64]) -> torch.Tensor:
        """What the devices train on in place of their targets.

        Args:
            y: classes, ``[k, ...]``, a device's in each row. Negative ones, which losses leave out, stay.
            devices: ``[k]``.
        """
        flips = self._flips[devices]
        if not flips.any():
            return y
        rows = torch.from_numpy(flips).to(y.device).reshape(-1, *[1] * (y.dim() - 1))
        return torch.where(rows & (y >= 0), self._classes - 1 - y, y)


def _times(value: torch.Tensor, factor: npt.NDArray[np.float64]) -> torch.Tensor:
    return value * torch.from_numpy(factor).to(value).reshape(-1, *[1] * (value.dim() - 1))


def num_classes(y: torch.Tensor, *, task: str) -> int:
    """How many classes a fleet's targets ``y`` name, for ``label_flip``: one more than the highest.

    Raises:
        InputError: the targets are no whole numbers.
    """
    if y.is_floating_point() or y.is_complex() or y.dtype is torch.bool:
        raise InputError(
            f"fleet.attacks: label_flip needs targets that are classes (whole numbers), those of task {task!r} are "
            f"{str(y.dtype).removeprefix('torch.')}: choose a task with classes, or sign_flip, scaled or nan"
        )
    return int(y.max()) + 1
