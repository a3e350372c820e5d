"""What an update did not say is kept on the device and added to its next one.

Rules:

1. A device's *residual* holds a tensor a weight that it reports, zeros before its first report.
2. It encodes ``delta + residual``; the next residual is that sum minus what the encoded update says, as who receives
   it decodes it. All float32, each operation rounded.
3. A report that does not count leaves the residual as it was; so does an update that is not finite.
4. The algorithm does not see it: it is kept beside the algorithm's state, under names of its own.

Source: Stich et al. 2018, arXiv:1809.07599, algorithm 1; Karimireddy et al. 2019, arXiv:1901.09847, algorithm 2.
"""

from dataclasses import replace

import torch

from pocketfleet.training.codec.codec import Codec
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors

__all__ = ["compensated", "first_residual", "parted_state", "residual_after", "state_with"]

_PREFIX = "residual/"


def first_residual(codec: Codec, like: Update) -> Tensors:
    """Rule 1: that of a device that has not reported, by weight; empty without error feedback."""
    return {name: torch.zeros_like(value) for name, value in like.delta.items()} if codec.error_feedback else {}


def compensated(update: Update, residual: Tensors) -> Update:
    """Rule 2: what is encoded; tensors of one device, or stacked."""
    if not residual:
        return update
    return replace(update, delta={name: value + residual[name] for name, value in update.delta.items()})


def residual_after(wanted: Update, sent: Update) -> Tensors:
    """Rule 2: the next residual, from what was encoded and what it says."""
    return {name: value - sent.delta[name] for name, value in wanted.delta.items()}


def state_with(state: Tensors, residual: Tensors) -> Tensors:
    """What a device keeps: its algorithm's state, and the residual under names of its own."""
    return state | {_PREFIX + name: value for name, value in residual.items()}


def parted_state(kept: Tensors) -> tuple[Tensors, Tensors]:
    """The algorithm's state and the residual of what ``state_with`` made."""
    residual = {name.removeprefix(_PREFIX): value for name, value in kept.items() if name.startswith(_PREFIX)}
    return {name: value for name, value in kept.items() if not name.startswith(_PREFIX)}, residual
