"""Whether a file is an update of this model: names, shapes, types, values, and how far it moves the weights."""

import math
from pathlib import Path

import torch

from pocketfleet.training.codec import Codec
from pocketfleet.training.server.refusal import RefusedError
from pocketfleet.training.update import Update, UpdateError

__all__ = ["checked_update"]


def checked_update(path: Path, *, codec: Codec, like: Update, max_norm: float) -> Update:
    """The update in a file.

    Args:
        path: of the file.
        codec: that it is written in.
        like: names, shapes and types.
        max_norm: of the delta as one vector; 0: any.

    Raises:
        RefusedError: it is none, holds values that are no finite numbers, or is longer than allowed.
        OSError: the file cannot be read.
    """
    try:
        update = codec.decode(path.read_bytes(), like)
    except UpdateError as exc:
        raise RefusedError(422, "no_update", f"the body is no update of this model: {exc}") from exc
    if not update.finite:
        raise RefusedError(422, "not_finite", "the update holds values that are no finite numbers: nothing was counted")
    norm = math.sqrt(sum(float(value.to(torch.float64).square().sum()) for value in update.delta.values()))
    if max_norm and norm > max_norm:
        raise RefusedError(422, "too_far", f"the update's norm is {norm:.6g}, at most {max_norm:g} is taken")
    return update
