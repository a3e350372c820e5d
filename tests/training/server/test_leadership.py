"""One decides, whatever becomes of it: who has lost the lock can write no more."""

import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from postgres_server import PostgresServer

from pocketfleet.training.server import leadership as module
from pocketfleet.training.server.database import FACTS, open_database
from pocketfleet.training.server.facts import read_facts, write_fact
from pocketfleet.training.server.leadership import FolderLeadership, PostgresLeadership, leadership


def test_a_folder_has_one_leader(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    first, second = leadership(database, tmp_path, "main"), leadership(database, tmp_path, "main")
    assert isinstance(first, FolderLeadership)
    assert first.acquire()
    assert first.acquire()
    assert not second.acquire()
    assert first.confirm()
    first.release()
    assert second.acquire()
    second.release()
    database.dispose()


def test_a_population_on_postgresql_has_one_leader(tmp_path: Path, postgres: PostgresServer) -> None:
    database = open_database(tmp_path, postgres.new_database())
    first, second = leadership(database, tmp_path, "main"), leadership(database, tmp_path, "main")
    other = leadership(database, tmp_path, "other")
    assert isinstance(first, PostgresLeadership)
    assert first.acquire()
    assert not second.acquire()
    assert other.acquire()
    first.release()
    assert second.acquire()
    for one in (second, other):
        one.release()
    database.dispose()


def test_who_has_lost_the_session_writes_no_more(tmp_path: Path, postgres: PostgresServer) -> None:
    database = open_database(tmp_path, postgres.new_database())
    first, second = PostgresLeadership(database, "main"), PostgresLeadership(database, "main")
    assert first.acquire()
    with first.begin() as connection:
        write_fact(connection, "epoch_s", "1")
        pid = connection.execute(sa.select(sa.func.pg_backend_pid())).scalar_one()
    with database.begin() as connection:
        connection.execute(sa.select(sa.func.pg_terminate_backend(pid)))
    with pytest.raises(sa.exc.SQLAlchemyError), first.begin() as connection:
        write_fact(connection, "epoch_s", "2")
    assert not first.confirm()
    assert second.acquire()
    with second.begin() as connection:
        assert read_facts(connection) == {"epoch_s": "1"}
    with pytest.raises(sa.exc.InvalidRequestError, match="does not lead any more"), first.begin():
        pass
    second.release()
    database.dispose()


def test_a_leader_that_hangs_leads_no_more(
    tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_IDLE_S", 1)
    database = open_database(tmp_path, postgres.new_database())
    first, second = PostgresLeadership(database, "main"), PostgresLeadership(database, "main")
    assert first.acquire()
    # Nothing is heard of the first for longer than a second.
    until_s = time.monotonic() + 20.0
    while not second.acquire():
        assert time.monotonic() < until_s
        time.sleep(0.1)  # noqa: TID251 - a server's clock is waited for
    with pytest.raises(sa.exc.SQLAlchemyError), first.begin() as connection:
        connection.execute(sa.insert(FACTS), {"name": "epoch_s", "value": "1"})
    second.release()
    database.dispose()
