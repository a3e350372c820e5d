"""What there is one of in a service's database, and who changes it: the service at its first start, administrators.

An administrator's change counts ``changes`` up in the same transaction; the service looks every second, so that the
commands need no running service and no way to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from pocketfleet.errors import InputError
from pocketfleet.training.server.database import FACTS

__all__ = ["Controls", "check_same", "controls", "read_facts", "write_fact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """What administrators decide.

    Attributes:
        changes: how many there were.
        paused: nobody gets work.
        released: the version that devices are to use; -1: what the gate says, or without one the newest.
        admin_sha256: of the administrator's credential; empty: there is none.
    """

    changes: int = 0
    paused: bool = False
    released: int = -1
    admin_sha256: str = ""


def read_facts(connection: sa.Connection) -> dict[str, str]:
    """All of them by name."""
    return {row.name: row.value for row in connection.execute(sa.select(FACTS))}


def write_fact(connection: sa.Connection, name: str, value: str) -> None:
    """Set one."""
    changed = connection.execute(sa.update(FACTS).where(FACTS.c.name == name).values(value=value))
    if changed.rowcount == 0:
        connection.execute(sa.insert(FACTS), {"name": name, "value": value})


def controls(facts: Mapping[str, str]) -> Controls:
    """Those that administrators decide."""
    return Controls(
        changes=int(facts.get("changes", "0")),
        paused=facts.get("paused", "") == "yes",
        released=int(facts.get("released", "-1")),
        admin_sha256=facts.get("admin_sha256", ""),
    )


def check_same(facts: Mapping[str, str], expected: Mapping[str, str], *, where: str) -> None:
    """Whether a database is the one of this experiment.

    Raises:
        InputError: it began with another.
    """
    for name, value in expected.items():
        if name in facts and facts[name] != value:
            raise InputError(
                f"{where} began with another {name}: {facts[name][:80]}, now it is {value[:80]}; serve the experiment "
                "that it began with, or begin anew with an empty state folder and database"
            )
