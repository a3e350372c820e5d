"""The folder a run leaves behind, written so that a kill at any moment loses nothing that a checkpoint holds.

Rules:

1. Tables grow by *parts*, one Parquet file each a checkpoint (``parts/events-000012.parquet``); checkpoint ``n`` counts
   on parts ``0..n``. Parts are written before their checkpoint.
2. A checkpoint is a folder that appears by renaming (``checkpoints/000012``); the last two are kept.
3. Reopening drops what the latest checkpoint does not count on: later parts, half-written folders.
4. ``finish`` joins the parts into whole tables, writes the last model (``model.safetensors``) and, last of all,
   ``summary.json``: a folder with a summary is complete.
"""

import contextlib
import json
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pocketfleet.errors import InputError
from pocketfleet.folder_lock import LOCK, try_lock
from pocketfleet.training.update import UpdateError, tensors_from_bytes, tensors_to_bytes
from pocketfleet.training.weights import Tensors
from pocketfleet.whole_file import sync_path, write_whole

__all__ = ["Checkpoint", "RunDirectory"]

EXPERIMENT, SUMMARY, MODEL = "experiment.toml", "summary.json", "model.safetensors"
# Where a gate decides: the model that phones use at the end, while ``MODEL`` is the last that was made.
RELEASED = "released.safetensors"
TRANSCRIPT = "transcript.jsonl"
_KEPT_CHECKPOINTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Everything a run continues from: JSON-able values, arrays and tensors, each by name."""

    values: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]]
    tensors: Tensors


class RunDirectory:
    """The files of one run; at most one process writes to it."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, path: Path, experiment_toml: str, *, force: bool) -> "RunDirectory":
        """Start a new run.

        Args:
            path: must not exist, be empty, or with ``force`` hold an earlier run, which is deleted.
            experiment_toml: the resolved experiment.
            force: replace an earlier run.

        Raises:
            InputError: ``path`` is in use, or holds something that is no run.
        """
        cls.check_free(path, force=force)
        path.mkdir(parents=True, exist_ok=True)
        directory = cls(path, _locked(path))
        # The summary first: a half-deleted run is not complete. The experiment last: it is still known for a run.
        rank = {SUMMARY: 0, EXPERIMENT: 2}
        for item in sorted(path.iterdir(), key=lambda item: rank.get(item.name, 1)):
            if item.name != LOCK:
                shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
        directory.write_text(EXPERIMENT, experiment_toml)
        return directory

    @staticmethod
    def check_free(path: Path, *, force: bool) -> None:
        """Raise ``InputError`` where ``create`` would; nothing changes."""
        for place in (path, *path.parents):
            if place.exists() and not place.is_dir():
                raise InputError(f"--out {path}: {place} is a file; name a folder")
        # A lock alone is what is left of a run that was killed before it wrote anything.
        if not path.is_dir() or all(item.name == LOCK for item in path.iterdir()):
            return
        if not (path / EXPERIMENT).is_file():
            raise InputError(f"--out {path} holds files that are no run of pocketfleet; name another folder")
        if not force:
            raise InputError(
                f"--out {path} holds a run already: name another folder, continue it with --resume, or replace it with "
                "--force"
            )
        _locked(path).close()

    @classmethod
    def reopen(cls, path: Path) -> "RunDirectory":
        """Open a run to continue it, dropping what its latest checkpoint does not count on.

        Raises:
            InputError: there is no run at ``path``, or another process writes to it.
        """
        if not (path / EXPERIMENT).is_file():
            raise InputError(f"--resume: {path} holds no run (no {EXPERIMENT}); name the folder of an earlier --out")
        directory = cls(path, _locked(path))
        if directory.complete:
            return directory
        number = directory.latest_number()
        for part in (path / "parts").glob("*"):
            if part.suffix != ".parquet" or _number(part) > number:
                part.unlink()
        for folder in [*(path / "checkpoints").glob(".*"), *path.glob(".bundle.*")]:
            shutil.rmtree(folder)
        try:
            directory.check_parts()
        except InputError:
            directory.close()
            raise
        return directory

    def check_parts(self) -> None:
        """Raise ``InputError`` if a part that the latest checkpoint counts on is missing or cannot be read."""
        for number in range(self.latest_number() + 1):
            for name in ("events", "rounds", "updates"):
                part = self._part(name, number)
                try:
                    pq.read_metadata(part)
                except (OSError, pa.ArrowException) as exc:
                    raise InputError(
                        f"{part} is missing or damaged ({exc}): this run cannot go on, start it anew with --force"
                    ) from exc

    def close(self) -> None:
        """Let another process write."""
        self._lock.close()

    @property
    def complete(self) -> bool:
        """Whether the run ended by itself."""
        return (self.path / SUMMARY).is_file()

    def latest_number(self) -> int:
        """The latest checkpoint's number, -1 without one."""
        return max((int(folder.name) for folder in self._checkpoints()), default=-1)

    def write_text(self, name: str, text: str) -> None:
        """Write a file so that it is there whole or not at all."""
        write_whole(self.path / name, text)

    def write_parts(self, number: int, tables: Mapping[str, pd.DataFrame]) -> None:
        """Write the rows that came since the last checkpoint."""
        folder = self.path / "parts"
        folder.mkdir(exist_ok=True)
        for name, table in tables.items():
            target = self._part(name, number)
            partial = target.with_suffix(".partial")
            table.to_parquet(partial, index=False)
            partial.replace(target)

    def write_checkpoint(self, number: int, checkpoint: Checkpoint) -> None:
        """Write checkpoint ``number`` and delete all but the last two."""
        folder = self.path / "checkpoints" / f"{number:06d}"
        partial = folder.with_name(f".{folder.name}.partial")
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        (partial / "values.json").write_text(json.dumps(dict(checkpoint.values)))
        arrays: dict[str, Any] = dict(checkpoint.arrays)
        np.savez(partial / "arrays.npz", **arrays)
        (partial / "tensors.safetensors").write_bytes(tensors_to_bytes(checkpoint.tensors))
        for file in partial.iterdir():
            sync_path(file)
        partial.rename(folder)
        sync_path(folder.parent)
        for old in sorted(self._checkpoints())[:-_KEPT_CHECKPOINTS]:
            shutil.rmtree(old)

    def read_checkpoint(self, number: int) -> Checkpoint:
        """Read the checkpoint that ``latest_number`` named.

        Raises:
            InputError: one of its files is missing or damaged; the message says how to fall back.
        """
        folder = self.path / "checkpoints" / f"{number:06d}"
        try:
            with np.load(folder / "arrays.npz", allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            return Checkpoint(
                values=json.loads((folder / "values.json").read_text()),
                arrays=arrays,
                tensors=tensors_from_bytes((folder / "tensors.safetensors").read_bytes()),
            )
        except (OSError, EOFError, ValueError, KeyError, UpdateError, zipfile.BadZipFile) as exc:
            raise InputError(
                f"checkpoint {folder} is damaged ({type(exc).__name__}: {exc}): delete that folder and --resume again "
                "to go on from the one before"
            ) from exc

    def parts(self, name: str) -> list[Path]:
        """The files of a table's rows so far, in order of writing."""
        return sorted((self.path / "parts").glob(f"{name}-*.parquet"))

    def read_parts(self, name: str) -> pd.DataFrame:
        """All rows of a table that were written so far, in order of writing."""
        parts = self.parts(name)
        tables = [table for table in map(pd.read_parquet, parts) if len(table)]
        return pd.concat(tables, ignore_index=True) if tables else pd.read_parquet(parts[0])

    def write_table(self, name: str, pieces: Iterable[pd.DataFrame]) -> None:
        """Write a whole table that comes in pieces, at least one; it is there whole or not at all."""
        partial = self.path / f".{name}.partial"
        with contextlib.ExitStack() as stack:
            writer: pq.ParquetWriter | None = None
            for piece in pieces:
                rows = pa.Table.from_pandas(piece, preserve_index=False)
                writer = writer or stack.enter_context(pq.ParquetWriter(partial, rows.schema))
                writer.write_table(rows)
        partial.replace(self.path / f"{name}.parquet")

    def finish(self, tables: Mapping[str, pd.DataFrame], model: Tensors, summary: Mapping[str, Any]) -> None:
        """Write whole tables, the last model (trainable weights and buffers) and the summary; delete the parts."""
        write_whole(self.path / MODEL, tensors_to_bytes(model))
        for name, table in tables.items():
            self.write_table(name, [table])
        self.write_text(SUMMARY, json.dumps(dict(summary), indent=2) + "\n")
        shutil.rmtree(self.path / "parts")

    def _part(self, name: str, number: int) -> Path:
        return self.path / "parts" / f"{name}-{number:06d}.parquet"

    def _checkpoints(self) -> list[Path]:
        return [folder for folder in (self.path / "checkpoints").glob("*") if folder.name.isdigit()]


def _locked(path: Path) -> IO[str]:
    lock = try_lock(path)
    if lock is None:
        raise InputError(f"another process is writing to {path}; wait for it, or name another folder")
    return lock


def _number(part: Path) -> int:
    return int(part.stem.rpartition("-")[2])
