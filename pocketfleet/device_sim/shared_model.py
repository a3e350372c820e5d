"""A model version in memory that all of a machine's worker processes read: written once, copied by nobody."""

from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pickle import PickleBuffer
from typing import Any

from pocketfleet.device_sim.plain_bytes import dumps, loads

__all__ = ["AttachedModels", "ModelHandle", "SharedModel"]

# Where a tensor may begin: as far apart as the widest vector registers of a CPU want it (AVX-512: 64 bytes).
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelHandle:
    """What a process needs to find a model: the memory's name, the pickled frame, the tensors' places."""

    name: str
    frame: bytes
    places: tuple[tuple[int, int], ...]


class SharedModel:
    """The owner's side: holds the memory until ``close``."""

    def __init__(self, model: object) -> None:
        buffers: list[PickleBuffer] = []
        frame = dumps(model, buffer_callback=buffers.append)
        places, end = [], 0
        for buffer in buffers:
            start = -(-end // _ALIGNMENT) * _ALIGNMENT
            end = start + buffer.raw().nbytes
            places.append((start, end))
        # A memory of no bytes is refused by the system.
        self._memory = SharedMemory(create=True, size=max(end, 1))
        for buffer, (start, stop) in zip(buffers, places, strict=True):
            _bytes(self._memory)[start:stop] = buffer.raw()
        self.handle = ModelHandle(name=self._memory.name, frame=frame, places=tuple(places))

    def close(self) -> None:
        """Give the memory back; processes that are attached keep theirs."""
        self._memory.close()
        self._memory.unlink()


class AttachedModels:
    """A worker's side: the models that it read last, newest last."""

    # Chunks of a buffered round may change between two versions.
    _KEPT = 2

    def __init__(self) -> None:
        self._attached: dict[str, tuple[Any, SharedMemory]] = {}
        # Forgotten here, and still looked at by somebody: tried again when the next one goes.
        self._closing: list[SharedMemory] = []

    def model(self, handle: ModelHandle) -> Any:  # noqa: ANN401 - what the owner shared
        """The object that was shared, its tensors in the shared memory: not to be changed."""
        if handle.name not in self._attached:
            self._keep(self._KEPT - 1)
            memory = SharedMemory(name=handle.name)
            views = [_bytes(memory)[start:stop] for start, stop in handle.places]
            self._attached[handle.name] = (loads(handle.frame, buffers=views), memory)
        return self._attached[handle.name][0]

    def close(self) -> None:
        """Forget all models."""
        self._keep(0)

    def _keep(self, count: int) -> None:
        while len(self._attached) > count:
            model, memory = self._attached.pop(next(iter(self._attached)))
            # Its tensors first: a memory that is looked at cannot be closed.
            del model
            self._closing.append(memory)
        self._closing = [memory for memory in self._closing if not _closed(memory)]


def _closed(memory: SharedMemory) -> bool:
    """Close it, if no tensor lies in it any more."""
    try:
        memory.close()
    except BufferError:
        return False
    return True


def _bytes(memory: SharedMemory) -> memoryview:
    assert memory.buf is not None  # it is open
    return memory.buf
