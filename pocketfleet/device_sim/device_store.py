"""What devices keep between rounds: their own models and their algorithm's state, on disk.

Rules:

1. A chunk of devices is written at once, as one safetensors file ``NNNNNNNN.safetensors`` of tensors stacked
   ``[k, ...]``, written once and never changed; reading maps it into memory.
2. Which file and row count for a device is the store's *index*, ``int32 [devices, 2]``, part of every checkpoint; -1
   before a device took part. A file that no kept index names is left over and goes at the next ``keep``.
3. Files are numbered upwards, so that those after a checkpoint never overwrite those it counts on.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pocketfleet.errors import InputError
from pocketfleet.training.weights import Tensors

__all__ = ["DeviceStore", "Index"]

Index = npt.NDArray[np.int32]
_MODEL, _STATE = "model/", "state/"
_INDEX = "index.npy"


class DeviceStore:
    """Files below ``path`` for so many ``devices``."""

    def __init__(self, path: Path, *, devices: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.index: Index = np.full((devices, 2), -1, dtype=np.int32)

    @classmethod
    def opened(cls, path: Path) -> "DeviceStore":
        """The store as ``save_index`` left it.

        Raises:
            InputError: there is none at ``path``.
        """
        try:
            index = np.load(path / _INDEX, allow_pickle=False)
        except (OSError, ValueError) as exc:
            raise InputError(f"{path} holds no store of devices' models: {exc}") from exc
        store = cls(path, devices=len(index))
        store.index = index
        return store

    def save_index(self) -> None:
        """Keep the index beside the files, for ``opened``."""
        np.save(self._path / _INDEX, self.index)

    def write(self, devices: npt.NDArray[np.int64], *, model: Tensors, state: Tensors) -> None:
        """Keep devices' models and states, tensors ``[k, ...]``, from now on; of neither, nothing is written."""
        if not model and not state:
            return
        number = int(self.index[:, 0].max(initial=-1)) + 1
        target = self._file(number)
        partial = target.with_suffix(".partial")
        named = {_MODEL + name: value for name, value in model.items()}
        named |= {_STATE + name: value for name, value in state.items()}
        save_file(_apart(named), partial)
        partial.replace(target)
        self.index[devices, 0] = number
        self.index[devices, 1] = np.arange(len(devices))

    def model(self, device: int) -> Tensors:
        """The device's own model: trainable weights and buffers by name; empty before the device took part."""
        number, row = self.index[device].tolist()
        return self._rows(number, [row], _MODEL, squeeze=True) if number >= 0 else {}

    def states(self, devices: npt.NDArray[np.int64], start: Tensors) -> Tensors:
        """The algorithm's states of devices, stacked ``[k, ...]``; ``start``: that of one that has not taken part."""
        # Copied, even for a single device: rows are written over below, and the start is everybody's.
        states = {
            name: value.expand(len(devices), *value.shape).clone(memory_format=torch.contiguous_format)
            for name, value in start.items()
            if len(devices)
        }
        if not states:
            return {}
        numbers, rows = self.index[devices].T
        for number in np.unique(numbers[numbers >= 0]).tolist():
            places = np.flatnonzero(numbers == number)
            kept = self._rows(number, rows[places].tolist(), _STATE)
            for name, value in kept.items():
                states[name][torch.from_numpy(places)] = value
        return states

    def keep(self, *indexes: Index) -> None:
        """Delete every file that none of these indexes names."""
        wanted = {self._file(int(number)).name for index in indexes for number in np.unique(index[:, 0])} | {_INDEX}
        for file in self._path.iterdir():
            if file.name not in wanted:
                file.unlink()

    def _rows(self, number: int, rows: Iterable[int], prefix: str, *, squeeze: bool = False) -> Tensors:
        chosen = list(rows)
        with safe_open(self._file(number), framework="pt") as file:
            names = sorted(name for name in file.keys() if name.startswith(prefix))  # noqa: SIM118 - no mapping
            if squeeze:
                return {name.removeprefix(prefix): file.get_slice(name)[chosen[0]] for name in names}
            return {name.removeprefix(prefix): file.get_tensor(name)[chosen] for name in names}

    def _file(self, number: int) -> Path:
        return self._path / f"{number:08d}.safetensors"


def _apart(tensors: Tensors) -> Tensors:
    """The same, none in another's memory, which safetensors refuses: Ditto's state is the device's own model."""
    apart: Tensors = {}
    taken: set[int] = set()
    for name, value in tensors.items():
        own = value.contiguous()
        if own.untyped_storage().data_ptr() in taken:
            own = own.clone()
        taken.add(own.untyped_storage().data_ptr())
        apart[name] = own
    return apart
