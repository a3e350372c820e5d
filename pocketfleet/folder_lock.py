"""Folders that at most one process writes to: a lock file in them, whose lock ends with its holder."""

import fcntl
from pathlib import Path
from typing import IO

__all__ = ["LOCK", "try_lock"]

LOCK = ".lock"


def try_lock(folder: Path) -> IO[str] | None:
    """The lock of a folder that is there, held until it is closed; ``None`` while another process holds it."""
    lock = (folder / LOCK).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock
