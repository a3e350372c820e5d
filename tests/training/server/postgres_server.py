"""PostgreSQL as Debian packages it, in a folder of the test's own."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

__all__ = ["PostgresServer", "postgres_programs"]

_FOLDERS = ("/usr/lib/postgresql",)


def postgres_programs() -> Path | None:
    """The folder of ``initdb`` and ``postgres``; ``None``: there is none."""
    for root in map(Path, _FOLDERS):
        for folder in sorted(root.glob("*/bin"), reverse=True):
            if (folder / "initdb").exists():
                return folder
    return None


class PostgresServer:
    """A cluster of its own on a free port, without passwords on the loopback address.

    PostgreSQL refuses to run as root: then it runs as ``postgres``, the package's own user, who must reach ``folder``.
    """

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._data = folder / "data"
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            self._port = int(listening.getsockname()[1])
        self._folder = folder
        self._databases = 0
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        self._run("initdb", "--pgdata", str(self._data), "--username", "tester", "--auth", "trust", "--no-sync")
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        self._run("pg_ctl", "--pgdata", str(self._data), "--wait", "--log", str(folder / "log"), "-o", options, "start")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        user = "postgres" if os.geteuid() == 0 else None
        done = subprocess.run(command, user=user, cwd=self._folder, check=False, capture_output=True, text=True)
        log = self._folder / "log"
        assert done.returncode == 0, f"{done.stdout}{done.stderr}{log.read_text() if log.exists() else ''}"

    def new_database(self) -> str:
        """The URL of an empty one."""
        self._databases += 1
        name = f"service{self._databases}"
        place = ("--host", "127.0.0.1", "--port", str(self._port), "--username", "tester")
        self._run("createdb", *place, name)
        return f"postgresql+psycopg://tester@127.0.0.1:{self._port}/{name}"

    def stop(self) -> None:
        self._run("pg_ctl", "--pgdata", str(self._data), "--mode", "immediate", "stop")
