"""A model's float32 tensors as one flat vector: in the order of their names, each row by row."""

import itertools

import numpy as np
import numpy.typing as npt
import torch

from pocketfleet.errors import InputError
from pocketfleet.training.weights import Tensors

__all__ = ["check_float32", "flat_vector", "piece_lengths", "shaped_like"]

Float32s = npt.NDArray[np.float32]


def check_float32(tensors: Tensors) -> None:
    """Whether all of a model's tensors can be values of the vector.

    Raises:
        InputError: one is of another type.
    """
    for name, value in sorted(tensors.items()):
        if value.dtype != torch.float32:
            raise InputError(
                f"codec: weight {name!r} is {str(value.dtype).removeprefix('torch.')}, and only float32 is encoded: "
                'set codec.name to "lossless" and codec.download_bits to 0'
            )


def piece_lengths(tensors: Tensors) -> tuple[int, ...]:
    """How many values each tensor has, in the vector's order."""
    return tuple(value.numel() for _, value in sorted(tensors.items()))


def flat_vector(tensors: Tensors) -> Float32s:
    """The vector ``[d]``; a copy."""
    parts = [value.detach().cpu().numpy().reshape(-1) for _, value in sorted(tensors.items())]
    return np.concatenate([*parts, np.empty(0, dtype=np.float32)])


def shaped_like(vector: Float32s, like: Tensors) -> Tensors:
    """The tensors of a vector, by the names and in the shapes of ``like``; they share its memory."""
    names = sorted(like)
    ends = list(itertools.accumulate(piece_lengths(like)))
    parts = {
        name: torch.from_numpy(vector[end - like[name].numel() : end]).reshape(like[name].shape)
        for name, end in zip(names, ends, strict=True)
    }
    return {name: parts[name] for name in like}
