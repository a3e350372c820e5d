"""Folders that are there whole or not at all, however the writer ends."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["whole_folder"]


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder beside ``path`` to write into, moved to ``path`` at the end; removed if the writing fails.

    What lies at ``path`` is replaced. Of several processes that write the same one, the last to finish stays. One that
    was killed leaves a hidden folder with its process's number, which the next process of that number removes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    _remove(partial, old)
    partial.mkdir()
    try:
        yield partial
        _move(partial, path, old)
    finally:
        _remove(partial, old)


def _move(partial: Path, path: Path, old: Path) -> None:
    while True:
        try:
            partial.rename(path)
        except OSError as exc:
            if exc.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise
        else:
            return
        # Another process may have moved it aside since.
        with suppress(FileNotFoundError):
            path.rename(old)
        _remove(old)


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
