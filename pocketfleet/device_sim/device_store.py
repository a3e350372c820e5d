"""What a device keeps between rounds: its personalised model and its algorithm's state, on disk.

Rules:

1. One safetensors file a device and round, ``DDDDDDD-RRRRRR.safetensors``, written once and never changed; reading
   maps it into memory.
2. Which files count is the store's *index* (device -> round), part of every checkpoint. A file that no kept index
   names is left over and goes at the next ``keep``.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from pocketfleet.training.weights import Tensors

__all__ = ["DeviceStore"]

_MODEL, _STATE = "model/", "state/"


class DeviceStore:
    """Files below ``path``; ``index`` tells which round each device's tensors are of."""

    def __init__(self, path: Path, index: Mapping[int, int] | None = None) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.index: dict[int, int] = dict(index or {})

    def write(self, device: int, *, round_index: int, model: Tensors, state: Tensors) -> None:
        """Keep a device's locally trained model and its algorithm's state from now on."""
        target = self._file(device, round_index)
        partial = target.with_suffix(".partial")
        named = {_MODEL + name: value.contiguous() for name, value in model.items()}
        named |= {_STATE + name: value.contiguous() for name, value in state.items()}
        save_file(named, partial)
        partial.replace(target)
        self.index[device] = round_index

    def model(self, device: int) -> Tensors:
        """The personalised model: trainable weights and buffers by name; empty before the device took part."""
        return self._read(device, _MODEL)

    def state(self, device: int) -> Tensors:
        """The algorithm's state; empty before the device took part."""
        return self._read(device, _STATE)

    def keep(self, *indexes: Mapping[int, int]) -> None:
        """Delete every file that none of these indexes names."""
        wanted = {self._file(device, index).name for kept in indexes for device, index in kept.items()}
        for file in self._path.iterdir():
            if file.name not in wanted:
                file.unlink()

    def _read(self, device: int, prefix: str) -> Tensors:
        if device not in self.index:
            return {}
        with safe_open(self._file(device, self.index[device]), framework="pt") as file:
            names = sorted(name for name in file.keys() if name.startswith(prefix))  # noqa: SIM118 - no mapping
            return {name.removeprefix(prefix): file.get_tensor(name) for name in names}

    def _file(self, device: int, round_index: int) -> Path:
        return self._path / f"{device:07d}-{round_index:06d}.safetensors"
