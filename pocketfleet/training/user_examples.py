"""The examples of all users as two tensors and the places where each user's rows begin: no object a user.

1. The rows of user ``u`` are ``offsets[u]`` to ``offsets[u + 1]``; users follow one another, none is left out.
2. On disk it is a folder of ``x.npy``, ``y.npy`` and ``offsets.npy``. Opened from there, the tensors are mapped into
   memory: what is not looked at takes none, and processes share what is. Writing to them changes no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pocketfleet.errors import InputError
from pocketfleet.training.examples import Examples
from pocketfleet.whole_folder import whole_folder

__all__ = ["UserExamples", "joined"]

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class UserExamples:
    """``x`` and ``y`` are ``[rows, ...]``, all users' rows one after another; ``offsets`` is ``int64 [users + 1]``."""

    x: torch.Tensor
    y: torch.Tensor
    offsets: Int64s

    def __post_init__(self) -> None:
        rows = len(Examples(self.x, self.y))
        offsets = self.offsets
        if not isinstance(offsets, np.ndarray) or offsets.dtype != np.int64 or offsets.ndim != 1 or len(offsets) < 2:
            raise InputError(
                "the offsets of users' examples must be a NumPy array of int64, one more than there are users, got "
                f"{offsets!r}"
            )
        if offsets[0] != 0 or offsets[-1] != rows or bool((np.diff(offsets) < 0).any()):
            raise InputError(
                f"the offsets of users' examples must rise from 0 to the number of rows ({rows}), got {offsets!r}"
            )

    def __len__(self) -> int:
        """How many users there are."""
        return len(self.offsets) - 1

    @property
    def examples(self) -> Examples:
        """All users' rows."""
        return Examples(self.x, self.y)

    def of(self, user: int) -> Examples:
        """The examples of one user, a view."""
        if not 0 <= user < len(self):
            raise IndexError(user)
        rows = slice(int(self.offsets[user]), int(self.offsets[user + 1]))
        return Examples(self.x[rows], self.y[rows])

    def save(self, folder: Path) -> None:
        """Write the files; the folder is there whole or not at all."""
        with whole_folder(folder) as partial:
            for name, column in (("x", self.x.numpy()), ("y", self.y.numpy()), ("offsets", self.offsets)):
                np.save(partial / f"{name}.npy", column)

    @classmethod
    def open(cls, folder: Path) -> "UserExamples":
        """What ``save`` or a writer wrote, mapped into memory.

        Raises:
            InputError: a file is missing, damaged, or does not fit the others.
        """
        columns = {name: _mapped(folder / f"{name}.npy") for name in ("x", "y", "offsets")}
        try:
            # The offsets are read: every process looks at all of them.
            offsets = np.array(columns["offsets"])
            return cls(torch.from_numpy(columns["x"]), torch.from_numpy(columns["y"]), offsets)
        except (InputError, TypeError) as exc:
            raise InputError(f"{folder} holds no users' examples: {exc}; delete it to have it made anew") from exc


def _mapped(path: Path) -> npt.NDArray[np.generic]:
    try:
        # Copy on write: a tensor over a read-only array would warn, and the file still cannot change.
        column: npt.NDArray[np.generic] = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as exc:
        raise InputError(f"cannot read {path}: {exc}; delete its folder to have it made anew") from exc
    return column


def joined(parts: Sequence[Examples], *, what: str) -> UserExamples:
    """Each user's own examples as columns.

    Args:
        parts: one a user, one at least.
        what: gives user ``u``'s, for the message ``{what}(u)``.

    Raises:
        InputError: two users' examples have other shapes or types.
    """
    for user, one in enumerate(parts):
        if _kind(one) != _kind(parts[0]):
            raise InputError(
                f"{what}({user}) gives x of shape {tuple(one.x.shape)} ({one.x.dtype}) and y of shape "
                f"{tuple(one.y.shape)} ({one.y.dtype}), other than {what}(0): {tuple(parts[0].x.shape)} "
                f"({parts[0].x.dtype}) and {tuple(parts[0].y.shape)} ({parts[0].y.dtype})"
            )
    offsets = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum([len(one) for one in parts], out=offsets[1:])
    return UserExamples(torch.cat([one.x for one in parts]), torch.cat([one.y for one in parts]), offsets)


def _kind(one: Examples) -> tuple[object, ...]:
    return one.x.shape[1:], one.x.dtype, one.y.shape[1:], one.y.dtype
