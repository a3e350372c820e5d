"""The tables of figures that the physics read, each figure with its source, and how a table is read.

Rules:

1. A table is a CSV file with a header. A packaged one lies in this folder; a user's one is a path.
2. A cell that does not hold what its column needs is the user's fault: the error names the file,
   the row (the header is row 1), the column, what came and what is allowed.
"""

import csv
import importlib.resources
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pocketfleet.errors import InputError

__all__ = ["Row", "file_rows", "packaged_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a table; ``where`` names the file and the row in errors."""

    where: str
    cells: Mapping[str, str]

    def text(self, column: str) -> str:
        """The cell's text, not empty.

        Raises:
            InputError: the cell is empty or missing.
        """
        cell = (self.cells.get(column) or "").strip()
        if not cell:
            raise InputError(f"{self.where}, column {column}: is empty; write a value")
        return cell

    def number(self, column: str, *, minimum: float = 0.0, positive: bool = True) -> float:
        """The cell as a finite number, more than ``minimum`` (or at least it, if not ``positive``).

        Raises:
            InputError: the cell is no such number.
        """
        cell = self.text(column)
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < minimum or (positive and value == minimum):
            bound = "more than" if positive else "at least"
            raise InputError(f"{self.where}, column {column}: must be a number {bound} {minimum:g}, got {cell!r}")
        return value

    def choice(self, column: str, allowed: Iterable[str]) -> str:
        """The cell as one of the allowed words.

        Raises:
            InputError: it is another word.
        """
        cell = self.text(column)
        words = tuple(allowed)
        if cell not in words:
            raise InputError(f"{self.where}, column {column}: must be one of {', '.join(words)}, got {cell!r}")
        return cell


def packaged_rows(name: str) -> tuple[Row, ...]:
    """The rows of a packaged table, by its file name."""
    text = (importlib.resources.files(__name__) / name).read_text(encoding="utf-8")
    return _rows(name, text, columns=())


def file_rows(path: Path, *, columns: Iterable[str]) -> tuple[Row, ...]:
    """The rows of a user's table.

    Args:
        path: a CSV file in UTF-8.
        columns: what the header must name; further columns are left alone.

    Raises:
        InputError: the file cannot be read, lacks a column or has no rows.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"cannot read the table {path}: {exc}") from exc
    return _rows(str(path), text, columns=columns)


def _rows(where: str, text: str, *, columns: Iterable[str]) -> tuple[Row, ...]:
    reader = csv.DictReader(text.splitlines())
    header = reader.fieldnames or ()
    missing = [column for column in columns if column not in header]
    if missing:
        raise InputError(f"{where}: the header lacks the column {', '.join(missing)}; it has {', '.join(header)}")
    rows = tuple(Row(where=f"{where}, row {reader.line_num}", cells=cells) for cells in reader)
    if not rows:
        raise InputError(f"{where}: has no rows under its header")
    return rows
