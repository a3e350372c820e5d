"""What a device reports: how far its weights moved, and its batch-norm statistics.

``delta = device_params - server_params`` (Reddi et al. 2021, arXiv:2003.00295, algorithm 1), here and everywhere.
Statistics (buffers) are reported as they are, not as differences: they are averaged by their own rule.
"""

from dataclasses import dataclass, field

from safetensors import SafetensorError
from safetensors.torch import load, save

from pocketfleet.errors import PocketfleetError
from pocketfleet.training.train_step import TrainState
from pocketfleet.training.weights import Tensors, Weights, all_finite

__all__ = ["Update", "UpdateError", "tensors_from_bytes", "tensors_to_bytes", "update_of"]


class UpdateError(PocketfleetError):
    """A peer sent bytes that are no update of this model."""


@dataclass(frozen=True, slots=True)
class Update:
    """``delta`` by trainable name and ``buffers`` by buffer name, as trained on one device.

    ``extra`` is what an algorithm's devices report beside them, by names of its own. The updates of a chunk of devices
    are one ``Update`` too, each tensor stacked ``[k, ...]``.
    """

    delta: Tensors
    buffers: Tensors
    extra: Tensors = field(default_factory=dict)

    def groups(self) -> dict[str, Tensors]:
        """The three by the names of the attributes."""
        return {"delta": self.delta, "buffers": self.buffers, "extra": self.extra}

    @property
    def finite(self) -> bool:
        """Whether every value is finite."""
        return all(all_finite(tensors) for tensors in self.groups().values())


def update_of(start: Weights, end: TrainState) -> Update:
    """The update of a device that started from ``start`` and ended in ``end``."""
    delta = {name: value - start.trainable[name] for name, value in end.trainable.items()}
    return Update(delta, end.buffers)


def tensors_to_bytes(tensors: Tensors) -> bytes:
    """Canonical bytes: safetensors as the library orders it (dtype, then name), without metadata."""
    return bytes(save({name: value.contiguous() for name, value in tensors.items()}))


def tensors_from_bytes(data: bytes) -> Tensors:
    """Tensors by name, in the order of their names: the library's own order changes from call to call.

    Raises:
        UpdateError: the bytes are no safetensors.
    """
    try:
        return dict(sorted(load(data).items()))
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as exc:
        # The library's own checks, then torch's: a type it has no name for, a size it cannot hold.
        raise UpdateError(f"{len(data)} bytes that are no safetensors: {exc}") from exc
