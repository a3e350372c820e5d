"""PostgreSQL for the tests of the service's state, started once a session's process."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from postgres_server import PostgresServer, postgres_programs


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server; without its programs, and without the right to install them, the test is skipped."""
    programs = postgres_programs()
    if programs is None and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "--yes", "--no-install-recommends", "postgresql"]
        done = subprocess.run(install, check=False, capture_output=True, text=True)
        programs = postgres_programs()
        assert programs is not None, done.stdout + done.stderr
    if programs is None:
        pytest.skip("PostgreSQL is not installed, and installing it takes root and apt")
    server = PostgresServer(programs, tmp_path_factory.mktemp("postgres"))
    try:
        yield server
    finally:
        server.stop()
