"""A data set that Hugging Face's datasets has saved to disk, read without that library; one user one device.

A saved data set is a folder with ``state.json``, which names the files under ``_data_files``, and those files, streams
of Arrow record batches. A folder of several splits has ``dataset_dict.json`` with their names under ``splits``, and a
folder each. Source of the format: what ``Dataset.save_to_disk`` and ``DatasetDict.save_to_disk`` write. Files are
mapped, and read in blocks of whole users.

Rows of a user need not lie together; users come in the order of their sorted names or numbers. Without a ``user``
column all rows are one user's, to be dealt out by a partition.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pocketfleet.errors import InputError
from pocketfleet.training.arrow_columns import check_names, stacked, values
from pocketfleet.training.converted import converted, held_back
from pocketfleet.training.example_columns import Column, Targets, check_targets, inputs, targets_of
from pocketfleet.training.own_data_task import own_data_task
from pocketfleet.training.user_examples_writer import UserExamplesWriter
from pocketfleet.training.users_task import UsersTask

__all__ = ["make_task"]

# Rows taken out of the mapped files at a time.
_BLOCK_ROWS = 10_000


def make_task(
    *,
    path: str,
    x: str | list[str],
    y: str,
    user: str = "",
    split: str = "train",
    test_split: str = "test",
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
        path: the saved folder.
        x: column of the inputs, numbers or lists of them or texts; or several columns of numbers.
        y: column of the targets.
        user: column that says whose a row is.
        split: what devices hold, of a folder of several splits.
        test_split: what no device holds; where the folder has no such split, every fifth row of each user.
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
    xs = [x] if isinstance(x, str) else list(x)
    folder, test_folder = _folders(Path(path), split, test_split)

    def columns(table: Any, where: str) -> tuple[Column, Column]:  # noqa: ANN401 - pyarrow has no types
        return (
            inputs(stacked(table, xs, where=where), tokens=tokens, shape=shape or [], where=f"{where}: {_named(xs)}"),
            targets_of(
                values(table.column(y), where=f"{where}: column {y!r}"), targets=targets, where=f"{where}: {y!r}"
            ),
        )

    def convert(users: UserExamplesWriter, test: UserExamplesWriter) -> None:
        table = _table(folder, xs, y, user)
        for number, block in enumerate(_blocks(_of_users(table, folder, user))):
            rows = np.concatenate(block)
            x_block, y_block = columns(table.take(pa.array(rows)), str(folder))
            start = 0
            for own in block:
                mine = slice(start, start + len(own))
                start = mine.stop
                away = held_back(len(own)) if test_folder is None else np.zeros(len(own), dtype=np.bool_)
                users.add(x_block[mine][~away], y_block[mine][~away], where=f"{folder}: block {number}")
                test.add(x_block[mine][away], y_block[mine][away], where=f"{folder}: block {number}")
        if test_folder is not None:
            table = _table(test_folder, xs, y, "")
            for start in range(0, table.num_rows, _BLOCK_ROWS):
                test.add(*columns(table.slice(start, _BLOCK_ROWS), str(test_folder)), where=str(test_folder))

    files = [file for part in (folder, test_folder) if part is not None for file in _files(part)]
    settings = {"format": "arrow", "x": xs, "y": y, "user": user, "split": split, "test_split": test_split}
    found = converted(
        Path(path),
        files,
        settings | {"shape": shape, "tokens": tokens, "targets": targets},
        cache=cache,
        convert=convert,
    )
    return own_data_task("arrow_dataset", found, model=model, loss=loss, metrics=metrics, hidden=hidden)


def _named(xs: list[str]) -> str:
    return ", ".join(repr(name) for name in xs)


def _folders(path: Path, split: str, test_split: str) -> tuple[Path, Path | None]:
    if (path / "state.json").exists():
        return path, None
    if not (path / "dataset_dict.json").exists():
        raise InputError(
            f"{path} is no data set saved to disk: it has neither state.json nor dataset_dict.json; save one with "
            "save_to_disk"
        )
    splits = _json(path / "dataset_dict.json").get("splits")
    if not isinstance(splits, list) or split not in splits:
        raise InputError(f"{path / 'dataset_dict.json'} has the splits {splits}, and task.options.split is {split!r}")
    return path / split, path / test_split if test_split in splits else None


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as exc:
        raise InputError(f"cannot read {file}: {exc}") from exc
    if not isinstance(found, dict):
        raise InputError(f"{file} must hold a JSON object, got {type(found).__name__}")
    return found


def _files(folder: Path) -> list[Path]:
    state = _json(folder / "state.json")
    names = state.get("_data_files")
    if not isinstance(names, list) or not all(isinstance(name, dict) and "filename" in name for name in names):
        raise InputError(f"{folder / 'state.json'} needs a list _data_files of objects with a filename")
    return [folder / str(name["filename"]) for name in names]


def _table(folder: Path, xs: list[str], y: str, user: str) -> Any:  # noqa: ANN401 - pyarrow has no types
    """The wanted columns of all files of a saved data set, mapped."""
    batches: list[Any] = []
    schema = None
    for file in _files(folder):
        try:
            with pa.ipc.open_stream(pa.memory_map(str(file))) as reader:
                schema = reader.schema
                for key, names in (("x", xs), ("y", [y]), ("user", [user] if user else [])):
                    check_names(names, present=schema.names, where=str(file), key=key)
                batches += [batch.select(list(dict.fromkeys([*xs, y, *([user] if user else [])]))) for batch in reader]
        except (OSError, pa.ArrowInvalid) as exc:
            raise InputError(f"cannot read {file} as a stream of Arrow record batches: {exc}") from exc
    if not batches:
        raise InputError(f"{folder} holds no rows")
    return pa.Table.from_batches(batches)


def _of_users(table: Any, folder: Path, user: str) -> list[npt.NDArray[np.int64]]:  # noqa: ANN401 - pyarrow has no types
    """Row numbers of each user, in order."""
    if not user:
        return [np.arange(table.num_rows)]
    names = np.asarray(values(table.column(user), where=f"{folder}: column {user!r}"))
    if names.ndim != 1:
        raise InputError(f"{folder}: column {user!r} (task.options.user) must hold one name or number a row")
    _, whose, count = np.unique(names, return_inverse=True, return_counts=True)
    return np.split(np.argsort(whose, kind="stable"), np.cumsum(count)[:-1])


def _blocks(users: list[npt.NDArray[np.int64]]) -> list[list[npt.NDArray[np.int64]]]:
    """Users together whose rows are about ``_BLOCK_ROWS``, one at least."""
    blocks: list[list[npt.NDArray[np.int64]]] = []
    rows = _BLOCK_ROWS
    for own in users:
        if rows >= _BLOCK_ROWS:
            blocks.append([])
            rows = 0
        blocks[-1].append(own)
        rows += len(own)
    return blocks
