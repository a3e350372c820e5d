"""One table a device: a folder of ``.csv`` or ``.parquet`` files, in the order of their names.

Columns are numbers; a first line names a CSV's. A file without rows is a device without examples. Where no table of
test rows is named, every fifth row of each file is held back.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pocketfleet.errors import InputError
from pocketfleet.training.arrow_columns import check_names, stacked, values
from pocketfleet.training.converted import converted, held_back
from pocketfleet.training.example_columns import Column, Targets, check_targets, inputs, targets_of
from pocketfleet.training.own_data_task import own_data_task
from pocketfleet.training.user_examples_writer import UserExamplesWriter
from pocketfleet.training.users_task import UsersTask

__all__ = ["make_task"]


def make_task(
    *,
    path: str,
    y: str,
    x: list[str] | None = None,
    test: str = "",
    shape: list[int] | None = None,
    tokens: bool = False,
    targets: Targets = "auto",
    model: str = "",
    loss: str = "",
    metrics: str = "",
    hidden: list[int] | None = None,
    cache: str = "",
) -> UsersTask:
    """The task.

    Args:
        path: the folder.
        y: the target's column.
        x: the features' columns; left out: all others of the first file, in its order.
        test: a file of the same columns with the test examples.
        shape: as for ``training.tasks.leaf``, like all that follow.
        tokens: likewise.
        targets: likewise.
        model: likewise.
        loss: likewise.
        metrics: likewise.
        hidden: likewise.
        cache: likewise.
    """
    check_targets(targets)
    files = _files(Path(path))
    features = x or [name for name in _table(files[0]).column_names if name != y]

    def columns(file: Path) -> tuple[Column, Column] | None:
        table = _table(file)
        for key, names in (("x", features), ("y", [y])):
            check_names(names, present=table.column_names, where=str(file), key=key)
        if table.num_rows == 0:
            return None
        rows = stacked(table, features, where=str(file))
        return (
            inputs(rows, tokens=tokens, shape=shape or [], where=f"{file}: the columns {features}"),
            targets_of(values(table.column(y), where=f"{file}: column {y!r}"), targets=targets, where=f"{file}: {y!r}"),
        )

    def convert(users: UserExamplesWriter, tests: UserExamplesWriter) -> None:
        for file in files:
            found = columns(file)
            if found is None:
                users.add_nothing()
                continue
            x_rows, y_rows = found
            away = np.zeros(len(x_rows), dtype=np.bool_) if test else held_back(len(x_rows))
            users.add(x_rows[~away], y_rows[~away], where=str(file))
            tests.add(x_rows[away], y_rows[away], where=str(file))
        if test and (found := columns(Path(test))):
            tests.add(*found, where=test)

    settings = {"format": "device_files", "x": features, "y": y, "test": test, "shape": shape, "tokens": tokens}
    found = converted(
        Path(path),
        [*files, *([Path(test)] if test else [])],
        settings | {"targets": targets},
        cache=cache,
        convert=convert,
    )
    return own_data_task("device_files", found, model=model, loss=loss, metrics=metrics, hidden=hidden)


def _files(folder: Path) -> list[Path]:
    found = {kind: sorted(folder.glob(f"*.{kind}")) for kind in ("csv", "parquet")}
    if not found["csv"] and not found["parquet"]:
        raise InputError(
            f"{folder} holds no .csv and no .parquet file; task.options.path is a folder of one table a device"
        )
    if found["csv"] and found["parquet"]:
        raise InputError(f"{folder} holds both .csv and .parquet files: keep one kind, one table a device")
    return found["csv"] or found["parquet"]


def _table(file: Path) -> Any:  # noqa: ANN401 - pyarrow has no types
    try:
        if file.suffix == ".csv":
            return pyarrow.csv.read_csv(file)
        return pyarrow.parquet.read_table(file)
    except (OSError, pa.ArrowInvalid) as exc:
        raise InputError(f"cannot read {file} as a table: {exc}") from exc
