"""A device's own examples, from a table of its own: a CSV file that is cut to a bundle's inputs and targets.

Columns are numbers, named by the first line. One column is the target, all others are the features, in their order.
Every fifth example is held out, as of data that arrives (``device_data``): the fifth, the tenth, ...
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pocketfleet.errors import InputError
from pocketfleet.export.signature import Signature, TensorSpec
from pocketfleet.training.examples import Examples
from pocketfleet.training.partition import HELD_OUT_ONE_IN

__all__ = ["OwnExamples", "OwnTable", "read_table"]

Floats = npt.NDArray[np.float64]
# So many names of columns a message repeats.
_TOLD_COLUMNS = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OwnTable:
    """Numbers ``[examples, columns]`` with their columns' names; ``target`` is one of them."""

    path: Path
    columns: tuple[str, ...]
    values: Floats
    target: str

    def __len__(self) -> int:
        return len(self.values)

    @property
    def num_held_out(self) -> int:
        """How many examples are held out."""
        return len(self) // HELD_OUT_ONE_IN

    def examples(self, signature: Signature) -> Examples:
        """The rows as a bundle's programs take them.

        Raises:
            InputError: there are more or fewer columns than the programs take, or values that their types do not hold.
        """
        x_spec, y_spec = _input(signature, "x"), _input(signature, "y")
        at = self.columns.index(self.target)
        features = [name for name in self.columns if name != self.target]
        wanted = math.prod(x_spec.sizes(1))
        if len(features) != wanted:
            raise InputError(
                f"{self.path} must hold {wanted} columns of features, as many as the model takes, beside the target "
                f"{self.target!r}; it holds {len(features)}: {_told(features)}. --target names another"
            )
        if math.prod(y_spec.sizes(1)) != 1:
            raise InputError(
                f"the model's targets are of shape {list(y_spec.shape)}, not one number an example: "
                "a table of one target column cannot hold them"
            )
        x = np.delete(self.values, at, axis=1)
        return Examples(self._tensor(x, x_spec, features), self._tensor(self.values[:, [at]], y_spec, [self.target]))

    def _tensor(self, values: Floats, spec: TensorSpec, names: Sequence[str]) -> torch.Tensor:
        dtype: torch.dtype = getattr(torch, spec.dtype)
        if not dtype.is_floating_point:
            broken = np.argwhere(values != np.round(values))
            if len(broken):
                row, column = broken[0]
                raise InputError(
                    f"{self.path}: column {names[column]!r} must hold whole numbers ({spec.dtype}), line {row + 2} "
                    f"holds {values[row, column]}"
                )
        return torch.from_numpy(values).to(dtype).reshape(spec.sizes(len(values)))


class OwnExamples:
    """One device's examples, whatever number it is called by."""

    def __init__(self, examples: Examples) -> None:
        place = torch.arange(len(examples))
        away = place % HELD_OUT_ONE_IN == HELD_OUT_ONE_IN - 1
        self._training, self._held_out = examples.take(place[~away]), examples.take(place[away])

    def training(self, device: int, present: range | None = None) -> Examples:  # noqa: ARG002 - the seam's signature
        """The examples that the device trains on; all are there from the start."""
        return self._training

    def held_out(self, device: int, present: range | None = None) -> Examples:  # noqa: ARG002
        """The examples that it measures its models on, none of fewer than five."""
        return self._held_out


def read_table(path: Path, *, target: str = "") -> OwnTable:
    """Read a CSV file.

    Args:
        path: the file.
        target: the target's column; the last one if left out.

    Raises:
        InputError: there is no such file, it is no table of numbers, or it has no such column.
    """
    import pyarrow as pa
    import pyarrow.csv

    if not path.is_file():
        raise InputError(f"there is no file {path}: --data names a CSV file with a row an example")
    try:
        table = pyarrow.csv.read_csv(path)
    except (OSError, pa.ArrowInvalid) as exc:
        raise InputError(f"cannot read {path} as a table: {exc}") from exc
    names = tuple(table.column_names)
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"{path} must have a first line that names two columns or more, each once, got {_told(names)}")
    if all(_is_number(name) for name in names):
        raise InputError(f"{path}: the first line must name the columns, it holds numbers: {_told(names)}")
    target = target or names[-1]
    if target not in names:
        raise InputError(f"{path} has no column {target!r}, which --target names; it has {_told(names)}")
    if table.num_rows == 0:
        raise InputError(f"{path} holds no examples: nothing can be learnt from it")
    columns = [_numbers(table.column(name), where=f"{path}: column {name!r}") for name in names]
    return OwnTable(path=path, columns=names, values=np.stack(columns, axis=1), target=target)


def _numbers(column: object, *, where: str) -> Floats:
    from pocketfleet.training.arrow_columns import values

    found = values(column, where=where)
    if not isinstance(found, np.ndarray):
        raise InputError(f"{where} must hold numbers, got texts such as {found[0]!r}")
    numbers = found.astype(np.float64)
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise InputError(f"{where} must hold finite numbers, line {row + 2} holds {numbers[row]}")
    return numbers


def _input(signature: Signature, role: str) -> TensorSpec:
    return next(spec for spec in signature.train_step.inputs if spec.role == role)


def _told(names: Sequence[str]) -> str:
    more = f" and {len(names) - _TOLD_COLUMNS} more" if len(names) > _TOLD_COLUMNS else ""
    return ", ".join(map(repr, names[:_TOLD_COLUMNS])) + more


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
