"""Files of the user's own format as columns, converted once: a folder that is made anew when they change.

1. The folder holds ``users`` and ``test``, both as ``user_examples`` has them (``test`` as one user), and
   ``source.json``: a fingerprint of names, sizes and times of the source's files and of the options.
2. It lies beside the source, ``<name>.pocketfleet``, or where the option ``cache`` says. It is there whole or not at
   all, and a folder that was not made so is never replaced.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketfleet.errors import InputError
from pocketfleet.training.examples import Examples
from pocketfleet.training.user_examples import UserExamples
from pocketfleet.training.user_examples_writer import UserExamplesWriter
from pocketfleet.whole_folder import whole_folder

__all__ = ["TEST_ONE_IN", "Converted", "converted", "held_back"]

# Raise it when the same files and options give other columns.
_VERSION = 1
_SOURCE = "source.json"
# Where a source has no test part, every fifth row of each user is held back: the usual share.
TEST_ONE_IN = 5

Convert = Callable[[UserExamplesWriter, UserExamplesWriter], None]


@dataclass(frozen=True, slots=True)
class Converted:
    """Everybody's examples, and those that no device holds, mapped into memory."""

    users: UserExamples
    test: Examples


def converted(
    source: Path, files: Iterable[Path], options: Mapping[str, Any], *, cache: str, convert: Convert
) -> Converted:
    """The columns of a source, converted where they are not there yet.

    Args:
        source: the user's file or folder.
        files: all of it that is read.
        options: what else settles the columns.
        cache: the folder to keep them in; empty: beside the source.
        convert: writes the users, and the test examples in as many parts as it likes.

    Raises:
        InputError: of ``convert``, or the folder cannot be written.
    """
    folder = Path(cache) if cache else source.with_name(f"{source.resolve().name}.pocketfleet")
    fingerprint = _fingerprint(source, files, options)
    if _read(folder) != fingerprint:
        if folder.exists() and not (folder / _SOURCE).exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(
                f"{folder} holds something else than converted examples: set task.options.cache to another"
            )
        try:
            with whole_folder(folder) as partial:
                for part in ("users", "test"):
                    (partial / part).mkdir()
                with UserExamplesWriter(partial / "users") as users, UserExamplesWriter(partial / "test") as test:
                    convert(users, test)
                (partial / _SOURCE).write_text(fingerprint)
        except OSError as exc:
            raise InputError(
                f"cannot write the converted examples to {folder}: {exc}; set task.options.cache to a folder that can "
                "be written"
            ) from exc
    return Converted(UserExamples.open(folder / "users"), UserExamples.open(folder / "test").examples)


def held_back(count: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of a user's rows are test examples where the source names none, ``bool [count]``."""
    away: np.ndarray[Any, np.dtype[np.bool_]] = np.arange(count) % TEST_ONE_IN == TEST_ONE_IN - 1
    return away


def _fingerprint(source: Path, files: Iterable[Path], options: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for path in files:
        try:
            stat = path.stat()
        except OSError as exc:
            raise InputError(f"cannot read {path}: {exc}") from exc
        digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    told = {"version": _VERSION, "source": str(source), "files": digest.hexdigest(), "options": dict(options)}
    return json.dumps(told, sort_keys=True, indent=1)


def _read(folder: Path) -> str:
    try:
        return (folder / _SOURCE).read_text()
    except OSError:
        return ""
