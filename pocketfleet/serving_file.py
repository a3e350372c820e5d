"""Where a service is, while it runs: ``serving.json`` in its state folder, which ends with it.

A process that is killed leaves its file behind. It is told apart by its process: one of that number that began at
another time is another one.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from pocketfleet.whole_file import write_whole

__all__ = ["SERVING", "Serving", "forget_serving", "read_serving", "tell_serving"]

SERVING = "serving.json"
# Field 22 of /proc/PID/stat, counted after the name in parentheses, which may hold blanks (man 5 proc_pid_stat).
_START_FIELD = 22 - 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A running service: the population's URL, and its process."""

    url: str
    pid: int


class _File(BaseModel):
    url: str
    pid: int
    began: str


def tell_serving(state: Path, url: str) -> None:
    """This process serves the population of ``state`` at ``url``."""
    pid = os.getpid()
    write_whole(state / SERVING, _File(url=url, pid=pid, began=_began(pid)).model_dump_json())


def forget_serving(state: Path) -> None:
    """It does no more; the file of another process stays."""
    found = _read(state)
    if found is not None and found.pid == os.getpid():
        (state / SERVING).unlink(missing_ok=True)


def read_serving(state: Path) -> Serving | None:
    """The service that runs on a state folder; ``None``: there is none, whatever a killed one left."""
    found = _read(state)
    if found is None or _began(found.pid) != found.began:
        return None
    return Serving(url=found.url, pid=found.pid)


def _read(state: Path) -> _File | None:
    try:
        return _File.model_validate_json((state / SERVING).read_text())
    except (OSError, ValueError):
        return None


def _began(pid: int) -> str:
    """When a process began, in the system's own ticks; empty: there is none. Elsewhere than on Linux: that it is."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return "runs" if not Path("/proc/self").exists() and _runs(pid) else ""
    return fields[_START_FIELD]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
