"""One workload on disk: the population's arrays, the initial weights, who trains in which round, in which order.

Every simulator reads it, so that all do the same arithmetic. The folder holds ``workload.json`` (the scalars below),
``weights.npz`` (the initial weights by name) and the arrays below as ``.npy``, memory-mapped when read.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Workload"]

_ARRAYS = ("x", "y", "test_x", "test_y", "training_rows", "cohorts", "orders")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workload:
    """What is trained, on what, by whom.

    Attributes:
        name: such as ``"mlp"``.
        title: what a reader is told.
        model: by ``learner.make_model``.
        learning_rate: of the devices' plain SGD.
        batch_size: examples a step.
        steps: a device's in a round: one pass over its training examples.
        seed: the experiment's.
        weights: initial ones by parameter name, float32.
        x: every device's examples, float32 ``[devices, examples, ...]``; a fifth of them are held out.
        y: targets, ``[devices, examples, ...]``, float32 or int64.
        test_x: what no device holds, ``[tests, ...]``; ``test_y`` likewise.
        training_rows: places in ``x`` that a device trains on, int64 ``[devices, steps * batch_size]``.
        cohorts: devices of a round, int64 ``[rounds, cohort]``, rising; without rounds before they are drawn.
        orders: places in ``training_rows``, in the order in which a device visits them, int64
            ``[rounds, cohort, steps * batch_size]``.
    """

    name: str
    title: str
    model: str
    learning_rate: float
    batch_size: int
    steps: int
    seed: int
    weights: dict[str, npt.NDArray[np.float32]]
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.generic]
    test_x: npt.NDArray[np.float32]
    test_y: npt.NDArray[np.generic]
    training_rows: npt.NDArray[np.int64]
    cohorts: npt.NDArray[np.int64]
    orders: npt.NDArray[np.int64]

    @property
    def devices(self) -> int:
        """How many there are."""
        return len(self.x)

    @property
    def rounds(self) -> int:
        """How many are laid down."""
        return len(self.cohorts)

    def save(self, folder: Path) -> None:
        """Write it to ``folder``, which may hold an earlier one."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        np.savez(folder / "weights.npz", **self.weights)
        scalars = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in (*_ARRAYS, "weights")
        }
        (folder / "workload.json").write_text(json.dumps(scalars, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Workload":
        """Read what ``save`` wrote; processes that read the same folder share its memory."""
        # Copy on write: torch takes no array that it may not write to, and nobody writes.
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in _ARRAYS}
        with np.load(folder / "weights.npz") as stored:
            weights = dict(stored)
        return cls(**json.loads((folder / "workload.json").read_text()), weights=weights, **arrays)

    def initial_weights(self) -> dict[str, torch.Tensor]:
        """Copies of the initial weights."""
        return {name: torch.tensor(value) for name, value in self.weights.items()}

    def visit(self, round_index: int, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        """``(x, y)`` of a device's training examples in the order in which it visits them in a round.

        Args:
            round_index: from 0.
            place: of the device in the round's cohort.
        """
        device = self.cohorts[round_index, place]
        rows = self.training_rows[device][self.orders[round_index, place]]
        return torch.from_numpy(self.x[device][rows]), torch.from_numpy(self.y[device][rows])

    def test(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``(x, y)`` of the common test examples."""
        return torch.from_numpy(self.test_x), torch.from_numpy(self.test_y)
