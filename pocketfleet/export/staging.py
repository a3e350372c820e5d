"""Where a bundle is written before it is whole: a hidden folder beside its place, which its writer holds a lock in.

1. The folder holds the lock's file and either the bundle that is being made or the old one that makes room for it. It
   is on the disk of the bundle's place, so that a rename moves the bundle there.
2. Its writer removes it. A writer that was killed does not, but its lock is gone: the next one for the same place takes
   the lock and removes the folder. A folder whose lock is held or missing is left alone.
3. A writer that was killed between moving the old bundle out and the new one in leaves the place empty: the old one is
   put back.
4. Where a file system has no locks, the file is taken away, and such a folder stays.
"""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["clear_stale", "put", "staged"]

_LOCK_FILE = "writer.lock"
_NEW, _OLD = "bundle", "old"


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A new folder to write the bundle for ``out`` into; removed at the end unless it was moved."""
    with _locked_folder(out) as folder:
        (folder / _NEW).mkdir()
        yield folder / _NEW


def put(bundle: Path, out: Path) -> None:
    """Move ``bundle`` to ``out``; a bundle that is there is moved aside first and removed last."""
    if not out.exists():
        bundle.rename(out)
        return
    with _locked_folder(out) as aside:
        out.rename(aside / _OLD)
        bundle.rename(out)


def clear_stale(out: Path) -> None:
    """Remove what killed writers have left beside ``out``; its parent exists."""
    name = re.compile(rf"\.{re.escape(out.name)}\.\w{{8}}")
    for folder in out.parent.iterdir():
        if name.fullmatch(folder.name) and not folder.is_symlink():
            _clear(folder, out)


@contextmanager
def _locked_folder(out: Path) -> Iterator[Path]:
    folder, lock = _made(out)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _made(out: Path) -> tuple[Path, int]:
    """A new folder beside ``out``, and its lock; another where it was taken for a stale one before it was locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        lock = os.open(folder / _LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        except OSError:
            (folder / _LOCK_FILE).unlink(missing_ok=True)
            return folder, lock
        if (folder / _LOCK_FILE).exists():
            return folder, lock
        os.close(lock)


def _clear(folder: Path, out: Path) -> None:
    try:
        lock = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (folder / _OLD).is_dir() and not out.exists():
            (folder / _OLD).rename(out)
        # The lock's file goes last: what a killed clearing leaves is stale as well.
        for part in (_NEW, _OLD):
            shutil.rmtree(folder / part, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return
    finally:
        os.close(lock)
