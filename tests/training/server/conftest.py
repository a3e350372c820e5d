"""PostgreSQL for the tests of the service's state, started once a session's process."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import PostgresServer, postgres_programs


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server; without its programs, and without the right to install them, the test is skipped."""
    programs = postgres_programs()
    if programs is None and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "--yes", "--no-install-recommends", "postgresql"]
        done = subprocess.run(install, check=False, capture_output=True, text=True)
        programs = postgres_programs()
        assert programs is not None, done.stdout + done.stderr
    if programs is None:
        pytest.skip("PostgreSQL is not installed, and installing it takes root and apt")
    # Not among pytest's own folders, which it closes to other users.
    with tempfile.TemporaryDirectory(prefix="pocketfleet-postgres-", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(programs, Path(folder))
        try:
            yield server
        finally:
            server.stop()
