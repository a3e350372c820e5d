"""The tables of a service, and how its database is opened: SQLite in the state folder, or PostgreSQL by URL.

Times are seconds of the population (``wall_clock``). Nothing that a device trained is in here: tensors are files.
"""

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pocketfleet.errors import InputError

__all__ = [
    "AUDIT",
    "BENCHMARKS",
    "DECISIONS",
    "DEVICES",
    "EVALUATIONS",
    "FACTS",
    "GATE",
    "MODELS",
    "PRIVACY",
    "RELEASES",
    "REPORTS",
    "ROUNDS",
    "SNAPSHOTS",
    "TOKENS",
    "WORK",
    "open_database",
]

_TABLES = sa.MetaData()
# SQLite numbers rows by itself in a column of exactly this type alone.
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _table(name: str, *columns: sa.Column[Any]) -> sa.Table:
    return sa.Table(name, _TABLES, *columns)


# What there is one of: the population's name, when it began, whether it is paused, which model is released.
FACTS = _table("facts", sa.Column("name", sa.String(64), primary_key=True), sa.Column("value", sa.Text, nullable=False))

TOKENS = _table(
    "tokens",
    sa.Column("token_sha256", sa.String(64), primary_key=True),
    sa.Column("device", sa.BigInteger),  # that used it
)

DEVICES = _table(
    "devices",
    sa.Column("device", _NUMBER, primary_key=True, autoincrement=False),  # dense, in order of enrolment
    sa.Column("device_id", sa.String(40), nullable=False, unique=True),
    sa.Column("credential_sha256", sa.String(64), nullable=False),
    sa.Column("enrolled_s", sa.Float(53), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # enrolled, revoked, left, forgotten
    sa.Column("phone", sa.Text, nullable=False),
    sa.Column("app_version", sa.Text, nullable=False),
)

# Everything that the coordinator was ever told, in the order in which it was: written down before anybody is answered.
DECISIONS = _table(
    "decisions",
    sa.Column("sequence", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("time_s", sa.Float(53), nullable=False),
    sa.Column("kind", sa.String(8), nullable=False),  # check_in, report, advance
    sa.Column("device", sa.BigInteger, nullable=False),
    sa.Column("assignment", sa.BigInteger, nullable=False),  # that was handed out or reported on; -1: none
    sa.Column("num_examples", sa.BigInteger, nullable=False),
    sa.Column("code", sa.Integer, nullable=False),  # the answer
    sa.Column("note", sa.Text, nullable=False),  # a check-in's own words, JSON
)

# The coordinator's state after so many decisions, which saves replaying them.
SNAPSHOTS = _table(
    "snapshots",
    sa.Column("sequence", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("time_s", sa.Float(53), nullable=False),
    sa.Column("state", sa.LargeBinary, nullable=False),
)

WORK = _table(
    "assignments",
    sa.Column("assignment", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("device", sa.BigInteger, nullable=False),
    sa.Column("round", sa.BigInteger, nullable=False),
    sa.Column("model_version", sa.BigInteger, nullable=False),
    sa.Column("time_s", sa.Float(53), nullable=False),
)

# Accepted reports.
REPORTS = _table(
    "reports",
    sa.Column("assignment", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("device", sa.BigInteger, nullable=False, index=True),
    sa.Column("round", sa.BigInteger, nullable=False),  # of the assignment
    sa.Column("counted_in", sa.BigInteger, nullable=False, index=True),  # the round, of a buffer perhaps a later one
    sa.Column("model_version", sa.BigInteger, nullable=False),
    sa.Column("time_s", sa.Float(53), nullable=False),
    sa.Column("num_examples", sa.BigInteger, nullable=False),
    sa.Column("steps", sa.BigInteger, nullable=False),
    sa.Column("examples_held", sa.BigInteger, nullable=False),
    sa.Column("train_loss", sa.Float(53), nullable=False),
    sa.Column("metric_global", sa.Float(53)),
    sa.Column("metric_personalised", sa.Float(53)),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
)

ROUNDS = _table(
    "rounds",
    sa.Column("round", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("model_version", sa.BigInteger, nullable=False),
    sa.Column("opened_s", sa.Float(53), nullable=False),
    sa.Column("closed_s", sa.Float(53), nullable=False),
    sa.Column("succeeded", sa.Boolean, nullable=False),
    sa.Column("reason", sa.String(16), nullable=False),
    sa.Column("assigned", sa.BigInteger, nullable=False),
    sa.Column("withdrawn", sa.BigInteger, nullable=False),
    sa.Column("accepted", sa.BigInteger, nullable=False),
    sa.Column("population", sa.BigInteger, nullable=False),  # devices enrolled when it closed
)

MODELS = _table(
    "models",
    sa.Column("version", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("round", sa.BigInteger, nullable=False),  # that made it; -1: the untrained one
    sa.Column("made_s", sa.Float(53), nullable=False),
    sa.Column("model_sha256", sa.String(64), nullable=False),  # over the values; see training.weights
    sa.Column("weights_sha256", sa.String(64), nullable=False),  # of the files
    sa.Column("weights_bytes", sa.BigInteger, nullable=False),
    sa.Column("download_sha256", sa.String(64), nullable=False),
    sa.Column("download_bytes", sa.BigInteger, nullable=False),
    sa.Column("broadcast_sha256", sa.String(64), nullable=False),  # empty: none
    sa.Column("broadcast_bytes", sa.BigInteger, nullable=False),
    sa.Column("server_state_sha256", sa.String(64), nullable=False),  # empty: none
    sa.Column("train_loss", sa.Float(53)),
    sa.Column("num_updates", sa.BigInteger, nullable=False),
    sa.Column("files_kept", sa.Boolean, nullable=False, default=True),  # no: see ``retention``
)

# What a version's making gave away of its devices, where something protects them.
PRIVACY = _table(
    "privacy",
    sa.Column("version", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("clip_norm", sa.Float(53), nullable=False),  # to which its updates were clipped
    sa.Column("participations", sa.BigInteger, nullable=False),  # of the device that is in most versions so far
    sa.Column("epsilon", sa.Float(53)),  # so far; without a value: nothing is promised
)

# The gate's state, JSON, in the one row of number 0; there is none without a gate.
GATE = _table(
    "gate",
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("state", sa.Text, nullable=False),
)

# What each version is for devices, where a gate decides; see ``training.release_gate``.
RELEASES = _table(
    "releases",
    sa.Column("version", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("since_s", sa.Float(53), nullable=False),
    sa.Column("reason", sa.String(16), nullable=False),
    sa.Column("evaluations", sa.BigInteger, nullable=False),  # of the latest verdict, and its means
    sa.Column("tried", sa.Float(53)),
    sa.Column("released", sa.Float(53)),
)

# What devices were asked to evaluate, and what they reported.
EVALUATIONS = _table(
    "evaluations",
    sa.Column("evaluation", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("device", sa.BigInteger, nullable=False),
    sa.Column("stage", sa.String(16), nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("released_version", sa.BigInteger, nullable=False),
    sa.Column("asked_s", sa.Float(53), nullable=False),
    sa.Column("reported_s", sa.Float(53)),
    sa.Column("num_held_out", sa.BigInteger),
    sa.Column("tried", sa.Float(53)),  # without a value although reported: no finite number
    sa.Column("released", sa.Float(53)),
)

BENCHMARKS = _table(
    "benchmarks",
    sa.Column("number", _NUMBER, primary_key=True),
    sa.Column("device", sa.BigInteger, nullable=False, index=True),
    sa.Column("time_s", sa.Float(53), nullable=False),
    sa.Column("result", sa.Text, nullable=False),
)

AUDIT = _table(
    "audit",
    sa.Column("number", _NUMBER, primary_key=True),
    sa.Column("time_s", sa.Float(53), nullable=False),
    sa.Column("actor", sa.String(64), nullable=False),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
)


def open_database(folder: Path, url: str = "") -> sa.Engine:
    """The engine of a service's database, its tables made where they are not there.

    Args:
        folder: the state folder, with ``service.sqlite`` in it.
        url: of another database, such as ``postgresql+psycopg://user@host/name``; empty: the SQLite file.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        engine = sa.create_engine(url) if url else _sqlite(folder / "service.sqlite")
        _TABLES.create_all(engine)
    except (sa.exc.SQLAlchemyError, ImportError) as exc:
        extra = " (pip install 'pocketfleet[postgresql]')" if isinstance(exc, ImportError) else ""
        where = sa.engine.make_url(url).render_as_string() if url and not isinstance(exc, sa.exc.ArgumentError) else url
        raise InputError(f"cannot open the database {where or folder}: {str(exc).splitlines()[0]}{extra}") from exc
    return engine


def _sqlite(file: Path) -> sa.Engine:
    # Who waits for another process's transaction waits so many seconds; ours take milliseconds.
    engine = sa.create_engine(f"sqlite:///{file}", connect_args={"timeout": 10.0})

    @sa.event.listens_for(engine, "connect")
    def _durable(connection: Any, _record: Any) -> None:  # noqa: ANN401 - of the driver
        # Readers beside the writer; every commit is on the disk before it returns (sqlite.org/pragma.html).
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine
