"""The folder of a sweep: one run directory a combination, and the table of all of them.

Rules:

1. ``sweep.json`` is written before the first run, and again, like ``sweep.csv``, whenever a run ends: a kill leaves the
   table of the runs that ended before it.
2. A folder with a ``sweep.json`` is a sweep; nothing else is ever replaced, and of a sweep only the runs that it names.
3. At most one process writes to it.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pocketfleet.device_sim.comparison_tables import csv_text
from pocketfleet.device_sim.run_comparison import Row
from pocketfleet.device_sim.run_directory import EXPERIMENT
from pocketfleet.errors import InputError
from pocketfleet.folder_lock import LOCK, try_lock
from pocketfleet.whole_file import write_whole

__all__ = ["SweepDirectory"]

SWEEP, TABLE = "sweep.json", "sweep.csv"


class SweepDirectory:
    """The files of one sweep; a context manager, at whose end another process may write."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path = path
        self._lock = lock

    @staticmethod
    def check(path: Path, *, force: bool, resume: bool) -> None:
        """Raise ``InputError`` where ``open`` would; nothing changes."""
        if force and resume:
            raise InputError("--resume keeps an earlier sweep and --force replaces it: leave one out")
        for place in (path, *path.parents):
            if place.exists() and not place.is_dir():
                raise InputError(f"--out {path}: {place} is a file; name a folder")
        is_sweep = (path / SWEEP).is_file()
        if resume and not is_sweep:
            raise InputError(f"--resume: {path} holds no sweep (no {SWEEP}); name the --out of an earlier one")
        if is_sweep and not (force or resume):
            raise InputError(
                f"--out {path} holds a sweep already: name another folder, go on with it by --resume, or replace it by "
                "--force"
            )
        if not is_sweep and path.is_dir() and any(item.name != LOCK for item in path.iterdir()):
            raise InputError(f"--out {path} holds files that are no sweep of pocketfleet; name another folder")

    @classmethod
    def open(cls, path: Path, *, force: bool, resume: bool) -> "SweepDirectory":
        """Start a sweep, or go on with one.

        Args:
            path: must not exist or be empty, or hold a sweep with ``force`` or ``resume``.
            force: delete the runs of the earlier sweep.
            resume: keep them.

        Raises:
            InputError: ``path`` does not allow it, or another process writes to it.
        """
        cls.check(path, force=force, resume=resume)
        path.mkdir(parents=True, exist_ok=True)
        lock = try_lock(path)
        if lock is None:
            raise InputError(f"another sweep is writing to {path}; wait for it, or name another folder")
        directory = cls(path, lock)
        try:
            if force:
                directory._remove_runs()
        except BaseException:
            lock.close()
            raise
        return directory

    def __enter__(self) -> "SweepDirectory":
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.close()

    def _remove_runs(self) -> None:
        """Delete the runs that the earlier sweep names, and its tables; the list of them last."""
        if (self.path / SWEEP).is_file():
            for name in _named_runs(self.path / SWEEP):
                folder = self.path / name
                # A damaged list must not lead out of the folder.
                inside = name == Path(name).name and name not in {"", ".."} and not folder.is_symlink()
                if inside and (folder / EXPERIMENT).is_file():
                    shutil.rmtree(folder)
            (self.path / TABLE).unlink(missing_ok=True)
            (self.path / SWEEP).unlink()

    def write(self, plan: Mapping[str, Any], rows: Sequence[Row]) -> None:
        """Write both tables, each whole or not at all.

        Args:
            plan: what was asked for, as JSON.
            rows: one a combination, all with the same columns; ``run`` is the folder's name.
        """
        write_whole(self.path / TABLE, csv_text(rows))
        write_whole(self.path / SWEEP, json.dumps({**plan, "rows": list(rows)}, indent=2, default=str) + "\n")


def _named_runs(file: Path) -> list[str]:
    try:
        return [str(row["run"]) for row in json.loads(file.read_text(encoding="utf-8"))["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise InputError(f"{file} is damaged ({exc}): delete its folder, or name another --out") from exc
