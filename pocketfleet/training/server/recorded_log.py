"""What a service wrote down, read back as tables of one moment: the material of an export.

Devices are numbers here: neither their ids nor what they said of themselves is read, but for the conditions at their
check-ins.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa

from pocketfleet.errors import InputError
from pocketfleet.training.server.database import (
    DECISIONS,
    DEVICES,
    MODELS,
    PRIVACY,
    REPORTS,
    ROUNDS,
    WORK,
    open_database,
)

__all__ = ["CONDITIONS", "RecordedLog", "read_log"]

# Of a check-in's ``protocol.Conditions``: what decides whether a device may train.
CONDITIONS = ("idle", "charging", "unmetered", "battery_ratio")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedLog:
    """Tables with the columns of ``database``, in order of their keys.

    Attributes:
        decisions: a check-in's note is replaced by ``CONDITIONS``, missing where the device did not tell.
        work: assignments.
        reports: accepted ones.
        rounds: closed ones.
        models: versions.
        privacy: what each version gave away, where something protects devices; no rows otherwise.
        devices: how many there are.
    """

    decisions: pd.DataFrame
    work: pd.DataFrame
    reports: pd.DataFrame
    rounds: pd.DataFrame
    models: pd.DataFrame
    privacy: pd.DataFrame
    devices: int


def read_log(folder: Path, *, database_url: str = "") -> RecordedLog:
    """Everything that a service has decided so far; it may go on meanwhile.

    Args:
        folder: the service's state.
        database_url: of its database, if that is not in the folder.

    Raises:
        InputError: there is no service's state, or its database does not answer.
    """
    if not database_url and not (folder / "service.sqlite").exists():
        raise InputError(f"{folder} is no service's state, it holds no service.sqlite: name the --state of serve")
    database = open_database(folder, database_url)
    try:
        with _one_moment(database) as connection:
            return RecordedLog(
                decisions=_with_conditions(_table(connection, DECISIONS)),
                work=_table(connection, WORK),
                reports=_table(connection, REPORTS),
                rounds=_table(connection, ROUNDS),
                models=_table(connection, MODELS),
                privacy=_table(connection, PRIVACY),
                devices=int(connection.execute(sa.select(sa.func.count()).select_from(DEVICES)).scalar_one()),
            )
    except sa.exc.SQLAlchemyError as exc:
        raise InputError(f"the database of {folder} does not answer: {str(exc).splitlines()[0]}") from exc
    finally:
        database.dispose()


@contextmanager
def _one_moment(database: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction whose reads all see the same."""
    if database.dialect.name == "sqlite":
        with database.connect() as connection:
            # The driver begins one with the first change only.
            connection.exec_driver_sql("BEGIN")
            yield connection
        return
    with database.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        yield connection


def _table(connection: sa.Connection, table: sa.Table) -> pd.DataFrame:
    (key,) = table.primary_key.columns
    rows = connection.execute(sa.select(table).order_by(key)).all()
    return pd.DataFrame([tuple(row) for row in rows], columns=[column.name for column in table.columns])


def _with_conditions(decisions: pd.DataFrame) -> pd.DataFrame:
    told = [json.loads(note).get("conditions", {}) if note else {} for note in decisions["note"]]
    columns: dict[str, Any] = {name: [one.get(name) for one in told] for name in CONDITIONS}
    kinds = {name: "Float64" if name == "battery_ratio" else "boolean" for name in CONDITIONS}
    return decisions.drop(columns="note").assign(**{name: pd.array(columns[name], dtype=kinds[name]) for name in kinds})
