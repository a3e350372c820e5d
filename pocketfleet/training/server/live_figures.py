"""What the live page shows, read from the database: the service's decisions are not held up by who watches.

Rules:

1. Every figure is of one moment: one transaction, read by a thread of its own.
2. However many watch, the database is asked once a second.
3. Devices come in pages, in order of their numbers, filtered here. A page looks at ``_MOST_LOOKED`` devices at most:
   it may hold fewer than were asked for, and still say where the next one begins.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field

from pocketfleet.training.round import RoundPlan
from pocketfleet.training.server.database import DEVICES, MODELS, PRIVACY, RELEASES, REPORTS, ROUNDS, WORK
from pocketfleet.training.server.durable_coordinator import StorageError
from pocketfleet.training.server.facts import controls, read_facts
from pocketfleet.training.server.minute_counts import Minute
from pocketfleet.training.server.service_plan import ServicePlan

__all__ = [
    "LiveDevice",
    "LiveDevices",
    "LiveDevicesQuery",
    "LiveFigures",
    "LivePrivacy",
    "LiveReader",
    "LiveRound",
    "LiveVersion",
]

T = TypeVar("T")
_ROWS = 20
_FRESH_S = 1.0
# Some tenths of a second of Python; with a filter that few devices pass the page goes on from there.
_MOST_LOOKED, _LOOKED_AT_ONCE = 20_000, 1_000


class LiveRound(BaseModel):
    """A round; ``outcome`` is ``open``, or what closed it, or ``abandoned``. Times are of the population."""

    round: int
    model_version: int
    outcome: str
    opened_s: float | None
    closed_s: float | None
    assigned: int
    accepted: int
    wanted: int


class LiveVersion(BaseModel):
    """A version of the model; ``state`` is what a gate made of it, empty without one."""

    version: int
    made_s: float
    num_updates: int
    train_loss: float | None
    files_kept: bool
    in_use: bool
    state: str


class LivePrivacy(BaseModel):
    """What devices have given away so far; ``epsilon`` null: nothing is promised. See docs/privacy.md."""

    epsilon: float | None
    delta: float
    clip_norm: float
    participations: int


class LiveFigures(BaseModel):
    """Everything but the devices' rows; ``devices`` counts them by state."""

    population: str
    time_s: float
    paused: bool
    finished: bool
    version: int
    count: int
    devices: dict[str, int]
    open_round: LiveRound
    rounds: list[LiveRound]
    versions: list[LiveVersion]
    minutes: list[Minute]
    privacy: LivePrivacy | None


class LiveDevicesQuery(BaseModel):
    """Which devices; ``text`` is looked for in the id and in what a device said of itself, without regard to case.

    Letters beyond ASCII are looked for as they are written.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    # No control character: no database has such text, and PostgreSQL refuses to look for it.
    text: Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    state: Literal["", "enrolled", "revoked", "left", "forgotten"] = ""
    after: Annotated[int, Field(ge=-1, le=2**53)] = -1
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class LiveDevice(BaseModel):
    """A device: its number and id, and what it said of itself."""

    device: int
    device_id: str
    state: str
    enrolled_s: float
    manufacturer: str
    model: str
    os_version: str
    app_version: str
    reports: int


class LiveDevices(BaseModel):
    """A page; ``next_after``: ask again with this ``after``, null: there are no more."""

    devices: list[LiveDevice]
    next_after: int | None


class LiveReader:
    """Reads for everybody who watches.

    Args:
        database: of the service.
        plan: of the service.
    """

    def __init__(self, database: sa.Engine, plan: ServicePlan) -> None:
        self._database = database
        self._plan = plan
        self._lock = asyncio.Lock()
        self._found: LiveFigures | None = None
        self._found_at_s = 0.0

    async def figures(self, *, now_s: float, minutes: list[Minute]) -> LiveFigures:
        """Rules 1 and 2.

        Args:
            now_s: the population's time.
            minutes: counts of the last ones.

        Raises:
            StorageError: the database does not answer.
        """
        async with self._lock:
            if self._found is None or time.monotonic() - self._found_at_s >= _FRESH_S:
                self._found = await _answered(lambda: self._read(now_s, minutes))
                self._found_at_s = time.monotonic()
            return self._found

    async def devices(self, query: LiveDevicesQuery) -> LiveDevices:
        """Rule 3.

        Raises:
            StorageError: the database does not answer.
        """
        return await _answered(lambda: self._read_devices(query))

    def _read(self, now_s: float, minutes: list[Minute]) -> LiveFigures:
        with self._database.connect() as connection:
            decided = controls(read_facts(connection))
            rounds = connection.execute(sa.select(ROUNDS).order_by(ROUNDS.c.round.desc()).limit(_ROWS)).all()
            judged = sa.select(MODELS, RELEASES.c.state).join_from(
                MODELS, RELEASES, MODELS.c.version == RELEASES.c.version, isouter=True
            )
            versions = connection.execute(judged.order_by(MODELS.c.version.desc()).limit(_ROWS)).all()
            passed = connection.execute(sa.select(RELEASES.c.version).where(RELEASES.c.state == "released")).scalar()
            states = connection.execute(sa.select(DEVICES.c.state, sa.func.count()).group_by(DEVICES.c.state)).all()
            open_round = self._open_round(connection, newest=versions[0].version if versions else 0)
            private = self._privacy(connection)
        newest = versions[0].version if versions else 0
        in_use = next(one for one in (decided.released, passed, newest) if one is not None and one >= 0)
        return LiveFigures(
            population=self._plan.population,
            time_s=now_s,
            paused=decided.paused,
            finished=newest >= self._plan.count,
            version=newest,
            count=self._plan.count,
            devices={state: int(count) for state, count in states},
            open_round=open_round,
            rounds=[self._closed_round(row) for row in rounds],
            versions=[
                LiveVersion(
                    version=row.version,
                    made_s=row.made_s,
                    num_updates=row.num_updates,
                    train_loss=row.train_loss,
                    files_kept=row.files_kept,
                    in_use=row.version == in_use,
                    state=row.state or "",
                )
                for row in versions
            ],
            minutes=minutes,
            privacy=private,
        )

    def _privacy(self, connection: sa.Connection) -> LivePrivacy | None:
        plan = self._plan.privacy
        if plan is None:
            return None
        row = connection.execute(sa.select(PRIVACY).order_by(PRIVACY.c.version.desc()).limit(1)).one_or_none()
        return LivePrivacy(
            epsilon=0.0 if row is None else row.epsilon,
            delta=plan.accountant.delta,
            clip_norm=plan.mean.max_norm if row is None else row.clip_norm,
            participations=0 if row is None else row.participations,
        )

    @property
    def _wanted(self) -> int:
        plan = self._plan.rounds
        return plan.cohort if isinstance(plan, RoundPlan) else plan.buffer

    def _closed_round(self, row: sa.Row[Any]) -> LiveRound:
        return LiveRound(
            round=row.round,
            model_version=row.model_version,
            outcome=row.reason if row.succeeded else "abandoned",
            opened_s=row.opened_s,
            closed_s=row.closed_s,
            assigned=row.assigned,
            accepted=row.accepted,
            wanted=self._wanted,
        )

    def _open_round(self, connection: sa.Connection, *, newest: int) -> LiveRound:
        closed = connection.execute(sa.select(sa.func.max(ROUNDS.c.round), sa.func.sum(ROUNDS.c.assigned))).one()
        number = 0 if closed[0] is None else closed[0] + 1
        # Assignments are numbered over all rounds.
        first = int(closed[1] or 0)
        last = connection.execute(sa.select(sa.func.max(WORK.c.assignment))).scalar_one()
        opened_s = connection.execute(sa.select(WORK.c.time_s).where(WORK.c.assignment == first)).scalar()
        counted = sa.select(sa.func.count()).select_from(REPORTS).where(REPORTS.c.counted_in == number)
        return LiveRound(
            round=number,
            model_version=newest,
            outcome="open",
            opened_s=opened_s,
            closed_s=None,
            assigned=0 if last is None else last + 1 - first,
            accepted=int(connection.execute(counted).scalar_one()),
            wanted=self._wanted,
        )

    def _read_devices(self, query: LiveDevicesQuery) -> LiveDevices:
        found: list[LiveDevice] = []
        looked, after = 0, query.after
        with self._database.connect() as connection:
            while len(found) < query.limit and looked < _MOST_LOOKED:
                rows = connection.execute(_candidates(query, after)).all()
                looked += len(rows)
                passed = list(_passing(rows, query.text.lower()))[: query.limit - len(found)]
                found += passed
                full = len(found) == query.limit and bool(passed)
                after = passed[-1].device if full else rows[-1].device if rows else after
                if len(rows) < _LOOKED_AT_ONCE and not full:
                    return LiveDevices(devices=_counted(connection, found), next_after=None)
            return LiveDevices(devices=_counted(connection, found), next_after=after)


async def _answered(call: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(call)
    except sa.exc.SQLAlchemyError as exc:
        raise StorageError(f"the database does not answer: {str(exc).splitlines()[0]}") from exc


def _candidates(query: LiveDevicesQuery, after: int) -> sa.Select[Any]:
    """The next devices that may pass: what a phone is lies there as JSON, whose keys the database looks through too."""
    chosen = sa.select(DEVICES).where(DEVICES.c.device > after).order_by(DEVICES.c.device).limit(_LOOKED_AT_ONCE)
    if query.state:
        chosen = chosen.where(DEVICES.c.state == query.state)
    if query.text:
        wanted = query.text.lower()
        texts = {DEVICES.c.device_id: wanted, DEVICES.c.app_version: wanted, DEVICES.c.phone: json.dumps(wanted)[1:-1]}
        chosen = chosen.where(
            sa.or_(*(sa.func.lower(column).contains(text, autoescape=True) for column, text in texts.items()))
        )
    return chosen


def _passing(rows: Sequence[sa.Row[Any]], wanted: str) -> Iterator[LiveDevice]:
    for row in rows:
        phone: Mapping[str, Any] = json.loads(row.phone)
        said = {name: str(phone.get(name, "")) for name in ("manufacturer", "model", "os_version")}
        if any(wanted in text.lower() for text in (row.device_id, row.app_version, *said.values())):
            yield LiveDevice(
                device=row.device,
                device_id=row.device_id,
                state=row.state,
                enrolled_s=row.enrolled_s,
                app_version=row.app_version,
                reports=0,
                **said,
            )


def _counted(connection: sa.Connection, devices: list[LiveDevice]) -> list[LiveDevice]:
    """The same, with how many of their reports count."""
    numbers = [one.device for one in devices]
    query = sa.select(REPORTS.c.device, sa.func.count()).where(REPORTS.c.device.in_(numbers)).group_by(REPORTS.c.device)
    reports = {device: int(count) for device, count in connection.execute(query)}
    return [one.model_copy(update={"reports": reports.get(one.device, 0)}) for one in devices]
