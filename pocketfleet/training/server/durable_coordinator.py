"""The coordinator, written ahead: what it was told is on the disk before anybody hears what it answered.

Rules:

1. Decisions are made in batches, all at one time, by one thread. A batch is one transaction: its decisions, and the
   assignments, accepted reports and closed rounds that follow from them.
2. When the transaction fails nobody is answered anything but that it failed, and the state is read back from the
   database before the next batch: what was not written never happened.
3. A restart reads the latest snapshot and makes the decisions after it again, to the same state. Answers that differ
   from those written down are a fault of ours and stop the service.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from pocketfleet.errors import PocketfleetError
from pocketfleet.training.round import CheckInCode, CheckIns, ReportCode, Reports, RoundClosed
from pocketfleet.training.server.database import DECISIONS, REPORTS, ROUNDS, SNAPSHOTS, WORK
from pocketfleet.training.server.leadership import Leadership
from pocketfleet.training.server.protocol import ReportFacts

__all__ = [
    "CheckInAsk",
    "CheckedIn",
    "Decided",
    "DurableCoordinator",
    "Move",
    "ReportAsk",
    "Reported",
    "StorageError",
    "Work",
]

# Decisions that a restart makes again at most, some tenths of a second; a snapshot holds a byte for each assignment
# that there ever was.
_SNAPSHOT_EVERY = 20_000
_READ_AT_ONCE = 10_000
# Assignments whose devices are known without asking the database, some 10 MB.
_REMEMBERED = 100_000


class StorageError(PocketfleetError):
    """The database did not take what was to be written; nothing of it happened."""


class Rounds(Protocol):
    """A coordinator: ``Coordinator`` or ``BufferedCoordinator``."""

    @property
    def round(self) -> int: ...
    @property
    def model_version(self) -> int: ...
    @property
    def now_s(self) -> float: ...
    def next_deadline_s(self) -> float: ...
    def check_in_many(self, device: npt.ArrayLike, now_s: npt.ArrayLike) -> CheckIns: ...
    def report_many(
        self, assignment_id: npt.ArrayLike, num_examples: npt.ArrayLike, now_s: npt.ArrayLike
    ) -> Reports: ...
    def advance(self, now_s: float) -> Sequence[RoundClosed]: ...
    def live_assignment(self, device: int) -> int: ...
    def state(self) -> Mapping[str, npt.NDArray[Any]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckInAsk:
    """A device asks for work; ``note`` is what it said of itself, JSON."""

    device: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportAsk:
    """A device brings an update whose file is on the disk."""

    device: int
    assignment: int
    facts: ReportFacts
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Time goes on: a deadline may have passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedIn:
    """The coordinator's answer; seconds are of the population, inf: never."""

    code: CheckInCode
    assignment: int
    round: int
    model_version: int
    time_s: float
    retry_at_s: float
    deadline_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """The coordinator's answer; ``counted_sha256``: of the file that counts for this assignment, empty: none."""

    code: ReportCode
    round: int
    counted_sha256: str


Ask = CheckInAsk | ReportAsk | Move
Answer = CheckedIn | Reported | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Whose an assignment is, and what of."""

    device: int
    round: int
    model_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """Answers in the order of the asks, and the rounds that closed."""

    answers: list[Answer]
    closed: tuple[RoundClosed, ...]


class DurableCoordinator:
    """One thread's own.

    Args:
        database: of the service.
        leadership: whose transactions write.
        make: an empty coordinator.
        restore: the one that a state was taken from.
        population: how many devices are enrolled, asked when a round closes.
    """

    def __init__(
        self,
        database: sa.Engine,
        leadership: Leadership,
        *,
        make: Callable[[], Rounds],
        restore: Callable[[Mapping[str, npt.NDArray[Any]]], Rounds],
        population: Callable[[], int],
    ) -> None:
        self._database = database
        self._leadership = leadership
        self._make = make
        self._restore = restore
        self._population = population
        self._rounds: Rounds | None = None
        self._sequence = self._snapshot_at = 0
        self._time_s = 0.0
        self._work: dict[int, Work] = {}  # the newest assignments
        self._read_back()

    @property
    def rounds(self) -> Rounds:
        """The coordinator, to be read only.

        Raises:
            StorageError: its state cannot be read back yet.
        """
        if self._rounds is None:
            self._read_back()
        assert self._rounds is not None
        return self._rounds

    @property
    def time_s(self) -> float:
        """Of the latest decision."""
        return self._time_s

    def decide(self, asks: Sequence[Ask], *, now_s: float) -> Decided:
        """Rule 1.

        Raises:
            StorageError: nothing was written, and nothing happened.
        """
        rounds, now_s = self.rounds, max(now_s, self._time_s)
        try:
            answers: list[Answer] = []
            rows: list[dict[str, Any]] = []
            for kind, group in groupby(asks, type):
                part = list(group)
                found = self._make_decisions(rounds, kind, part, now_s)
                answers += found
                rows += [_row(ask, answer, now_s) for ask, answer in zip(part, found, strict=True)]
            closed = tuple(rounds.advance(now_s))
            self._write(rows, asks, answers, closed, now_s)
        except sa.exc.SQLAlchemyError as exc:
            self._rounds = None
            raise StorageError(f"the database did not take {len(asks)} decisions: {_first_line(exc)}") from exc
        except BaseException:
            self._rounds = None
            raise
        self._sequence += len(rows)
        self._time_s = now_s
        if closed and self._sequence - self._snapshot_at >= _SNAPSHOT_EVERY:
            self._save_snapshot()
        return Decided(answers=self._with_round(asks, answers), closed=closed)

    def _make_decisions(self, rounds: Rounds, kind: type[Ask], asks: list[Any], now_s: float) -> list[Answer]:
        times = np.full(len(asks), now_s)
        if kind is CheckInAsk:
            found = rounds.check_in_many([ask.device for ask in asks], times)
            # A check-in closes no round, so that the deadline is that of all of them.
            return [_checked_in(found, row, now_s, rounds.next_deadline_s()) for row in range(len(asks))]
        if kind is ReportAsk:
            reports = rounds.report_many(
                [ask.assignment for ask in asks], [ask.facts.num_examples for ask in asks], times
            )
            return [Reported(code=ReportCode(int(code)), round=-1, counted_sha256="") for code in reports.code]
        return [None] * len(asks)

    def _write(
        self,
        rows: list[dict[str, Any]],
        asks: Sequence[Ask],
        answers: Sequence[Answer],
        closed: Sequence[RoundClosed],
        now_s: float,
    ) -> None:
        numbered = [{"sequence": self._sequence + place, **row} for place, row in enumerate(rows)]
        work = {
            answer.assignment: Work(device=ask.device, round=answer.round, model_version=answer.model_version)
            for ask, answer in zip(asks, answers, strict=True)
            if isinstance(ask, CheckInAsk) and isinstance(answer, CheckedIn) and answer.assignment >= 0
        }
        # What closed in this batch counts there, the rest in the round that is open after it.
        counted = {number: one.round for one in closed for number in one.assignment_id.tolist()}
        accepted = [
            self._report_row(ask, counted.get(ask.assignment, self.rounds.round), now_s)
            for ask, answer in zip(asks, answers, strict=True)
            if isinstance(ask, ReportAsk) and isinstance(answer, Reported) and answer.code is ReportCode.ACCEPTED
        ]
        with self._leadership.begin() as connection:
            connection.execute(sa.insert(DECISIONS), numbered)
            if work:
                rows_of_work = [{"assignment": number, "time_s": now_s, **asdict(one)} for number, one in work.items()]
                connection.execute(sa.insert(WORK), rows_of_work)
            if accepted:
                connection.execute(sa.insert(REPORTS), accepted)
            if closed:
                population = self._population()
                connection.execute(sa.insert(ROUNDS), [_closed_row(one, population) for one in closed])
        self._remember(work)

    def _remember(self, work: Mapping[int, Work]) -> None:
        self._work.update(work)
        while len(self._work) > _REMEMBERED:
            del self._work[next(iter(self._work))]

    def work(self, assignment: int) -> Work | None:
        """Whose an assignment is; ``None``: it was never handed out. Any thread may ask.

        Raises:
            StorageError: the database does not answer.
        """
        found = self._work.get(assignment)
        if found is not None:
            return found
        try:
            with self._database.connect() as connection:
                row = connection.execute(sa.select(WORK).where(WORK.c.assignment == assignment)).one_or_none()
        except sa.exc.SQLAlchemyError as exc:
            raise StorageError(f"the database does not answer: {_first_line(exc)}") from exc
        return Work(device=row.device, round=row.round, model_version=row.model_version) if row is not None else None

    def _report_row(self, ask: ReportAsk, counted_in: int, now_s: float) -> dict[str, Any]:
        work = self.work(ask.assignment)
        assert work is not None
        given: dict[str, Any] = {"assignment": ask.assignment, "counted_in": counted_in, "time_s": now_s}
        given |= {"sha256": ask.sha256, "bytes": ask.bytes}
        return given | asdict(work) | ask.facts.model_dump()

    def _with_round(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> list[Answer]:
        """The answers, those to reports with their round and the hash of what counts for their assignment."""
        return [
            self._placed(ask, answer.code) if isinstance(ask, ReportAsk) and isinstance(answer, Reported) else answer
            for ask, answer in zip(asks, answers, strict=True)
        ]

    def _placed(self, ask: ReportAsk, code: ReportCode) -> Reported:
        work = self.work(ask.assignment)
        counted = ask.sha256 if code is ReportCode.ACCEPTED else ""
        if code is ReportCode.REPEATED:
            try:
                with self._database.connect() as connection:
                    query = sa.select(REPORTS.c.sha256).where(REPORTS.c.assignment == ask.assignment)
                    counted = str(connection.execute(query).scalar_one())
            except sa.exc.SQLAlchemyError as exc:
                raise StorageError(f"the database does not answer: {_first_line(exc)}") from exc
        return Reported(code=code, round=work.round if work else -1, counted_sha256=counted)

    def _save_snapshot(self) -> None:
        """A failure costs time at the next start, and nothing else: the next closing tries again."""
        buffer = io.BytesIO()
        np.savez(buffer, **self.rounds.state())  # type: ignore[arg-type]
        try:
            with self._leadership.begin() as connection:
                connection.execute(
                    sa.insert(SNAPSHOTS),
                    {"sequence": self._sequence, "time_s": self._time_s, "state": buffer.getvalue()},
                )
                # The one before stays, for whoever copies the database meanwhile.
                connection.execute(sa.delete(SNAPSHOTS).where(SNAPSHOTS.c.sequence < self._snapshot_at))
        except sa.exc.SQLAlchemyError:
            return
        self._snapshot_at = self._sequence

    def _read_back(self) -> None:
        """Rule 3."""
        try:
            with self._database.connect() as connection:
                newest = connection.execute(
                    sa.select(SNAPSHOTS).order_by(SNAPSHOTS.c.sequence.desc()).limit(1)
                ).one_or_none()
                rounds = self._make()
                self._sequence, self._time_s = 0, 0.0
                if newest is not None:
                    with np.load(io.BytesIO(newest.state), allow_pickle=False) as arrays:
                        rounds = self._restore({name: arrays[name] for name in arrays.files})
                    self._sequence, self._time_s = newest.sequence, newest.time_s
                self._snapshot_at = self._sequence
                query = (
                    sa.select(DECISIONS).where(DECISIONS.c.sequence >= self._sequence).order_by(DECISIONS.c.sequence)
                )
                for rows in connection.execute(query).partitions(_READ_AT_ONCE):
                    self._again(rounds, rows)
                # They were written down when they happened.
                rounds.advance(max(self._time_s, rounds.now_s))
        except sa.exc.SQLAlchemyError as exc:
            raise StorageError(f"the database does not give back its decisions: {_first_line(exc)}") from exc
        self._rounds = rounds

    def _again(self, rounds: Rounds, rows: Sequence[sa.Row[Any]]) -> None:
        for kind, group in groupby(rows, lambda row: row.kind):
            part = list(group)
            times = [row.time_s for row in part]
            if kind == "check_in":
                found = rounds.check_in_many([row.device for row in part], times)
                same = found.code.tolist() == [row.code for row in part] and found.assignment_id.tolist() == [
                    row.assignment for row in part
                ]
            elif kind == "report":
                reports = rounds.report_many(
                    [row.assignment for row in part], [row.num_examples for row in part], times
                )
                same = reports.code.tolist() == [row.code for row in part]
            else:
                rounds.advance(times[-1])
                same = True
            if not same:
                raise PocketfleetError(
                    f"decisions {part[0].sequence} to {part[-1].sequence} come out otherwise than they were written "
                    "down: the experiment's [rounds] is another, or the database was altered"
                )
            self._time_s = times[-1]
            self._sequence = part[-1].sequence + 1


def _checked_in(found: CheckIns, row: int, now_s: float, deadline_s: float) -> CheckedIn:
    return CheckedIn(
        code=CheckInCode(int(found.code[row])),
        assignment=int(found.assignment_id[row]),
        round=int(found.round[row]),
        model_version=int(found.model_version[row]),
        time_s=now_s,
        retry_at_s=float(found.retry_at_s[row]),
        deadline_s=deadline_s,
    )


def _row(ask: Ask, answer: Answer, now_s: float) -> dict[str, Any]:
    row = {"time_s": now_s, "kind": "advance", "device": -1, "assignment": -1, "num_examples": 0, "code": 0, "note": ""}
    if isinstance(ask, CheckInAsk) and isinstance(answer, CheckedIn):
        told = {"assignment": answer.assignment, "code": int(answer.code), "note": ask.note}
        return row | {"kind": "check_in", "device": ask.device} | told
    if isinstance(ask, ReportAsk) and isinstance(answer, Reported):
        given = {"assignment": ask.assignment, "num_examples": ask.facts.num_examples, "code": int(answer.code)}
        return row | {"kind": "report", "device": ask.device} | given
    return row


def _closed_row(closed: RoundClosed, population: int) -> dict[str, Any]:
    return {
        "round": closed.round,
        "model_version": closed.model_version,
        "opened_s": closed.opened_s,
        "closed_s": closed.time_s,
        "succeeded": closed.succeeded,
        "reason": closed.reason,
        "assigned": closed.assigned,
        "withdrawn": closed.withdrawn,
        "accepted": len(closed.device),
        "population": population,
    }


def _first_line(exc: Exception) -> str:
    return str(exc).splitlines()[0]
