"""Which of several server processes decides: the one that holds the lock, for as long as it holds it.

Rules:

1. With SQLite the lock is the state folder's: it ends with its process.
2. With PostgreSQL it is an advisory lock of the session that also writes every decision: whoever has lost the session
   can write no more, so that two can never decide at once. The server ends a session that was silent for
   ``_IDLE_S`` seconds, and with it the leadership of a process that hangs.
"""

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

import sqlalchemy as sa

from pocketfleet.folder_lock import try_lock

__all__ = ["FolderLeadership", "Leadership", "PostgresLeadership", "leadership"]

# Our choice: ten of the leader's heartbeats.
_IDLE_S = 10


class Leadership(Protocol):
    """The seam."""

    def acquire(self) -> bool:
        """Try to become the one that decides."""
        ...

    def begin(self) -> AbstractContextManager[sa.Connection]:
        """A transaction that commits only while the lock is held; an exception rolls back."""
        ...

    def confirm(self) -> bool:
        """Whether the lock is still held; to be asked every second."""
        ...

    def release(self) -> None:
        """Let another one decide."""
        ...


class FolderLeadership:
    """Rule 1."""

    def __init__(self, database: sa.Engine, folder: Path) -> None:
        self._database = database
        self._folder = folder
        self._lock: IO[str] | None = None

    def acquire(self) -> bool:
        """Whether no other process holds the folder."""
        self._lock = self._lock or try_lock(self._folder)
        return self._lock is not None

    def begin(self) -> AbstractContextManager[sa.Connection]:
        """Of the database file."""
        return self._database.begin()

    def confirm(self) -> bool:
        """A lock on a file is not lost."""
        return self._lock is not None

    def release(self) -> None:
        """Close the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


class PostgresLeadership:
    """Rule 2."""

    def __init__(self, database: sa.Engine, population: str) -> None:
        self._database = database
        # An advisory lock's name is a signed 64-bit number.
        digest = hashlib.sha256(f"pocketfleet {population}".encode()).digest()
        self._key = int.from_bytes(digest[:8], "big", signed=True)
        self._session: sa.Connection | None = None

    def acquire(self) -> bool:
        """Whether no other session holds the lock."""
        if self._session is not None:
            return True
        try:
            session = self._database.connect()
            try:
                with session.begin():
                    session.execute(sa.text(f"SET idle_session_timeout = '{_IDLE_S}s'"))
                    held = bool(session.execute(sa.select(sa.func.pg_try_advisory_lock(self._key))).scalar_one())
            except BaseException:
                session.invalidate()
                session.close()
                raise
        except sa.exc.SQLAlchemyError:
            return False
        if held:
            self._session = session
        else:
            # Not back into the pool: the time-out is of leaders.
            session.invalidate()
            session.close()
        return held

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """Of the session that holds the lock."""
        if self._session is None:
            raise sa.exc.InvalidRequestError("this process does not lead any more")
        try:
            with self._session.begin():
                yield self._session
        except sa.exc.DBAPIError as exc:
            if exc.connection_invalidated:
                self.release()
            raise

    def confirm(self) -> bool:
        """Ask the server; also keeps the session from being silent."""
        try:
            with self.begin() as session:
                session.execute(sa.select(1))
        except sa.exc.SQLAlchemyError:
            self.release()
            return False
        return True

    def release(self) -> None:
        """End the session."""
        session, self._session = self._session, None
        if session is not None:
            session.invalidate()
            session.close()


def leadership(database: sa.Engine, folder: Path, population: str) -> Leadership:
    """What suits the database."""
    if database.dialect.name == "sqlite":
        return FolderLeadership(database, folder)
    return PostgresLeadership(database, population)
