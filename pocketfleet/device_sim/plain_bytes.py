"""Objects that hold tensors as bytes between this program's own processes.

Tensors travel as plain arrays: torch's own way through a pipe opens a shared-memory file for each. Never for what
comes from elsewhere: unpickling runs what the bytes say.
"""

import io
import pickle
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["dumps", "loads"]


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:  # noqa: ANN401 - pickle's signature
        if type(value) is torch.Tensor:
            return torch.from_numpy, (value.detach().contiguous().numpy(),)
        return NotImplemented


def dumps(value: object, *, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None) -> bytes:
    """The object's bytes; with ``buffer_callback``, the arrays' own go there instead."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=5, buffer_callback=buffer_callback).dump(value)
    return buffer.getvalue()


def loads(data: bytes, *, buffers: list[memoryview] | None = None) -> Any:  # noqa: ANN401 - what was dumped
    """What ``dumps`` took; with ``buffers``, arrays are views into these."""
    return pickle.loads(data, buffers=buffers)
