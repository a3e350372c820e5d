"""What administrators do to a service, in its database: whether or not it runs, and wherever.

Each is one transaction with a line in the audit log; a running service sees it within a second (``facts``).
"""

import getpass
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pocketfleet.errors import InputError
from pocketfleet.training.server.credentials import new_secret, secret_hash
from pocketfleet.training.server.database import (
    AUDIT,
    DEVICES,
    MODELS,
    RELEASES,
    REPORTS,
    ROUNDS,
    TOKENS,
    open_database,
)
from pocketfleet.training.server.facts import controls, read_facts, write_fact
from pocketfleet.training.server.wall_clock import wall_s

__all__ = [
    "device_rows",
    "issue_tokens",
    "model_rows",
    "new_admin_credential",
    "pause",
    "release",
    "resume",
    "revoke",
    "roll_back",
    "round_rows",
    "unpin",
]

Rows = list[dict[str, Any]]


@contextmanager
def _opened(folder: Path, database_url: str) -> Iterator[sa.Connection]:
    """A transaction on a service's database.

    Raises:
        InputError: there is none at this place.
    """
    if not database_url and not (folder / "service.sqlite").exists():
        raise InputError(
            f"{folder} is no service's state, it holds no service.sqlite: name the --state of pocketfleet serve, or "
            "its --database"
        )
    database = open_database(folder, database_url)
    try:
        with database.begin() as connection:
            yield connection
    except sa.exc.SQLAlchemyError as exc:
        raise InputError(f"the database of {folder} did not take it: {str(exc).splitlines()[0]}") from exc
    finally:
        database.dispose()


def _changed(connection: sa.Connection, action: str, detail: str) -> None:
    facts = read_facts(connection)
    write_fact(connection, "changes", str(controls(facts).changes + 1))
    time_s = wall_s() - float(facts["epoch_s"]) if "epoch_s" in facts else 0.0
    connection.execute(
        sa.insert(AUDIT),
        {"time_s": time_s, "actor": f"administrator {getpass.getuser()}"[:64], "action": action, "detail": detail},
    )


def issue_tokens(folder: Path, *, count: int = 1, database_url: str = "") -> list[str]:
    """New tokens, each for one enrolment; they are shown this once.

    Args:
        folder: the service's state.
        count: how many.
        database_url: of its database, if that is not in the folder.

    Raises:
        InputError: there is no service's state.
    """
    tokens = [new_secret() for _ in range(count)]
    with _opened(folder, database_url) as connection:
        connection.execute(
            sa.insert(TOKENS), [{"token_sha256": secret_hash(token), "device": None} for token in tokens]
        )
        _changed(connection, "tokens", str(count))
    return tokens


def new_admin_credential(folder: Path, *, database_url: str = "") -> str:
    """A new credential for the routes of administrators; the one before is void. Shown this once."""
    credential = new_secret()
    with _opened(folder, database_url) as connection:
        write_fact(connection, "admin_sha256", secret_hash(credential))
        _changed(connection, "admin_credential", "")
    return credential


def pause(folder: Path, *, database_url: str = "") -> None:
    """Nobody gets work any more; reports on work that was handed out still count."""
    _set(folder, "paused", "yes", action="pause", database_url=database_url)


def resume(folder: Path, *, database_url: str = "") -> None:
    """Devices get work again."""
    _set(folder, "paused", "", action="resume", database_url=database_url)


def _set(folder: Path, name: str, value: str, *, action: str, database_url: str) -> None:
    with _opened(folder, database_url) as connection:
        write_fact(connection, name, value)
        _changed(connection, action, "")


def release(folder: Path, version: int, *, database_url: str = "") -> None:
    """Devices are to use this version, whatever a gate says, until ``unpin``; training goes on from the newest.

    Raises:
        InputError: there is no such version.
    """
    with _opened(folder, database_url) as connection:
        versions = sa.select(MODELS.c.version, MODELS.c.files_kept).order_by(MODELS.c.version)
        there = {row.version: row.files_kept for row in connection.execute(versions)}
        if version not in there:
            known = f"{min(there)} to {max(there)}" if there else "none yet"
            raise InputError(f"there is no version {version}: the service has {known}")
        if not there[version]:
            kept = ", ".join(str(one) for one, files_kept in there.items() if files_kept)
            raise InputError(f"version {version} has no files any more (service.keep_models): those of {kept} are kept")
        write_fact(connection, "released", str(version))
        _changed(connection, "release", str(version))


def roll_back(folder: Path, version: int, *, database_url: str = "") -> None:
    """Devices are to use an older version again; as ``release``, of a version before the newest that any device uses.

    Raises:
        InputError: there is no such version, or it is not older.
    """
    with _opened(folder, database_url) as connection:
        used = _used(connection)
        if controls(read_facts(connection)).released < 0:
            canary = sa.select(RELEASES.c.version).where(RELEASES.c.state == "canary")
            used = max(used, connection.execute(canary).scalar() or -1)
    if used >= 0 and version >= used:
        raise InputError(f"devices use version {used}: roll back to an older one, got {version}")
    release(folder, version, database_url=database_url)


def unpin(folder: Path, *, database_url: str = "") -> None:
    """Take ``release`` or ``roll_back`` back: the gate, or without one the newest version, decides again."""
    _set(folder, "released", "-1", action="unpin", database_url=database_url)


def _used(connection: sa.Connection) -> int:
    """The version that devices are to use which are in no share; -1: there is none yet."""
    chosen = controls(read_facts(connection)).released
    if chosen >= 0:
        return chosen
    released = connection.execute(sa.select(RELEASES.c.version).where(RELEASES.c.state == "released")).scalar()
    newest = connection.execute(sa.select(sa.func.max(MODELS.c.version))).scalar()
    return next((int(version) for version in (released, newest) if version is not None), -1)


def revoke(folder: Path, device_id: str, *, database_url: str = "") -> None:
    """A device's credential is void.

    Raises:
        InputError: there is no such device, or it takes part no more.
    """
    with _opened(folder, database_url) as connection:
        changed = connection.execute(
            sa.update(DEVICES)
            .where(DEVICES.c.device_id == device_id, DEVICES.c.state == "enrolled")
            .values(state="revoked")
        )
        if changed.rowcount != 1:
            raise InputError(
                f"no enrolled device has the id {device_id!r}: see pocketfleet list devices --state {folder}"
            )
        _changed(connection, "revoke", device_id)


def round_rows(folder: Path, *, database_url: str = "") -> Rows:
    """The closed rounds, in order."""
    return _rows(folder, sa.select(ROUNDS).order_by(ROUNDS.c.round), database_url=database_url)


def model_rows(folder: Path, *, database_url: str = "") -> Rows:
    """The versions, in order; ``in_use`` marks the one that devices are to use, ``state`` is what a gate made of each.

    Of the latest verdict: ``evaluations`` that it went by, and the metric of the version ``tried`` and of the one that
    was ``released`` then; ``None`` without one.
    """
    columns: Sequence[Any] = (
        RELEASES.c.state,
        RELEASES.c.reason,
        RELEASES.c.evaluations,
        RELEASES.c.tried,
        RELEASES.c.released,
    )
    query = sa.select(MODELS, *columns).join_from(
        MODELS, RELEASES, MODELS.c.version == RELEASES.c.version, isouter=True
    )
    with _opened(folder, database_url) as connection:
        rows = [dict(row._mapping) for row in connection.execute(query.order_by(MODELS.c.version))]
        used = _used(connection)
    return [{**row, "in_use": row["version"] == used} for row in rows]


def device_rows(folder: Path, *, database_url: str = "") -> Rows:
    """The devices, in order of enrolment, with how many of their reports count."""
    counted = (
        sa.select(REPORTS.c.device, sa.func.count().label("reports")).group_by(REPORTS.c.device).subquery("counted")
    )
    columns: Sequence[Any] = (
        DEVICES.c.device,
        DEVICES.c.device_id,
        DEVICES.c.state,
        DEVICES.c.enrolled_s,
        DEVICES.c.phone,
        DEVICES.c.app_version,
        sa.func.coalesce(counted.c.reports, 0).label("reports"),
    )
    query = (
        sa.select(*columns)
        .join_from(DEVICES, counted, DEVICES.c.device == counted.c.device, isouter=True)
        .order_by(DEVICES.c.device)
    )
    return _rows(folder, query, database_url=database_url)


def _rows(folder: Path, query: sa.Select[Any], *, database_url: str) -> Rows:
    with _opened(folder, database_url) as connection:
        return [dict(row._mapping) for row in connection.execute(query)]
