"""PostgreSQL for the tests of the service's state, started once a session's process."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import PostgresServer, postgres_programs


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server; without its programs the test is skipped."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: make postgresql does it, as root where there is apt-get")
    # Not among pytest's own folders, which it closes to other users.
    with tempfile.TemporaryDirectory(prefix="pocketfleet-postgres-", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(programs, Path(folder))
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Of an empty database; empty: the SQLite file of the state folder."""
    if request.param == "sqlite":
        return ""
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return postgres.new_database()
