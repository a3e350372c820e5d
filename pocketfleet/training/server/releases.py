"""Which version each device is to use and who evaluates which: the gate, written ahead.

Rules:

1. Without a gate devices use what an administrator chose, or the newest version.
2. With one, whatever it is told is one transaction of the thread that decides: its new state, the evaluations that were
   asked for and reported, and what versions became. It is told a copy, which takes its place once that is durable: what
   was not written never happened, and whoever reads beside it reads a state that was.
3. A restart takes up the state as it was, and tells it of versions and choices that it missed.
"""

import json
import math
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa

from pocketfleet.training.release_gate import Change, Evaluation, EvaluationCode, ReleaseGate
from pocketfleet.training.release_verdict import Measured, ReleasePlan
from pocketfleet.training.server.database import EVALUATIONS, GATE, RELEASES
from pocketfleet.training.server.leadership import Leadership
from pocketfleet.training.server.protocol import EvaluationAnswer, EvaluationReport
from pocketfleet.training.server.refusal import RefusedError

__all__ = ["Releases"]

T = TypeVar("T")
Write = Callable[[sa.Connection], None]


class Releases:
    """One service's.

    Args:
        plan: of the gate; ``None``: there is none.
        database: of the service.
        leadership: whose transactions write.
        told: hears what versions became, once it is durable.
    """

    def __init__(
        self,
        plan: ReleasePlan | None,
        *,
        database: sa.Engine,
        leadership: Leadership,
        told: Callable[[Change], None],
    ) -> None:
        self._plan = plan
        self._database = database
        self._leadership = leadership
        self._told = told
        self._gate: ReleaseGate | None = None
        self._in_doubt = False  # a transaction failed: perhaps it is written, perhaps not
        self._newest = 0
        self._chosen = -1

    def load(self, *, newest: int, chosen: int, now_s: float) -> None:
        """Rule 3.

        Args:
            newest: version that is made.
            chosen: by an administrator; -1: none.
            now_s: time of the population.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database does not answer.
        """
        self._newest, self._chosen = newest, chosen
        if self._plan is None:
            return
        self._gate = self._read_back()
        if self._gate is None:
            self._gate = ReleaseGate(self._plan)
            row = {"version": 0, "state": "released", "since_s": now_s, "reason": "made", "evaluations": 0}
            self._write(self._gate, lambda connection: connection.execute(sa.insert(RELEASES), row))
        self.made(newest, now_s=now_s)
        self.look(chosen=chosen, now_s=now_s)

    # Any thread

    def version_for(self, device: int) -> int:
        """The version that a device is to use."""
        gate = self._gate
        if gate is not None:
            return gate.version_for(device)
        return self._chosen if self._chosen >= 0 else self._newest

    def wants(self, device: int, *, now_s: float) -> bool:
        """Whether a device that is free is to evaluate, as far as is known without a decision."""
        gate = self._gate
        return gate is not None and gate.wants(device, max(now_s, gate.now_s))

    def next_deadline_s(self) -> float:
        """When ``look`` has something to do at the latest."""
        return self._gate.next_deadline_s() if self._gate is not None else math.inf

    def versions_in_use(self) -> set[int]:
        """Versions whose weights devices may still ask for, the newest among them."""
        chosen = {self._chosen} if self._chosen >= 0 else set()
        return {self._newest, *chosen} | (self._gate.versions_in_use() if self._gate is not None else set())

    # The thread that decides

    def made(self, version: int, *, now_s: float) -> None:
        """A version was made.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: it is not written; ask again.
        """
        self._settle()
        if self._gate is not None and version > self._gate.newest:
            first = self._gate.newest + 1

            def told(gate: ReleaseGate, at_s: float) -> tuple[None, list[Change], list[Write]]:
                # A restart may have missed more than one.
                return None, [change for one in range(first, version + 1) for change in gate.made(one, at_s)], []

            self._decide(told, now_s=now_s)
        self._newest = version

    def look(self, *, chosen: int, now_s: float) -> None:
        """Time goes on, and an administrator may have chosen; raises as ``made``."""
        self._settle()
        gate = self._gate
        if gate is not None:
            if chosen >= 0 and not (gate.chosen and gate.released == chosen):
                self._decide(lambda gate, at_s: (None, gate.choose(chosen, at_s), []), now_s=now_s)
            elif chosen < 0 and gate.chosen:
                self._decide(lambda gate, at_s: (None, gate.let_go(at_s), []), now_s=now_s)
            elif now_s >= gate.next_deadline_s():
                self._decide(lambda gate, at_s: (None, gate.advance(at_s), []), now_s=now_s)
        self._chosen = chosen

    def ask(self, device: int, *, now_s: float) -> Evaluation | None:
        """What a free device is to evaluate; ``None``: nothing. Raises as ``made``."""
        self._settle()

        def asked(gate: ReleaseGate, at_s: float) -> tuple[Evaluation | None, list[Change], list[Write]]:
            changes = gate.advance(at_s)
            evaluation = gate.ask(device, at_s)
            if evaluation is None:
                return None, changes, []
            return evaluation, changes, [lambda connection: _insert_asked(connection, evaluation, device, at_s)]

        return self._decide(asked, now_s=now_s)

    def deadline_in_s(self, *, now_s: float) -> float:
        """How long the stage under way still takes reports."""
        return max(self.next_deadline_s() - now_s, 0.0)

    def report(self, device: int, number: int, report: EvaluationReport, *, now_s: float) -> EvaluationAnswer:
        """A device's evaluation; the same again is answered the same.

        Raises:
            RefusedError: it does not count, and why.
            sqlalchemy.exc.SQLAlchemyError: it is not written; send it again.
        """
        self._settle()
        given = report.model_dump()
        with self._database.connect() as connection:
            row = connection.execute(sa.select(EVALUATIONS).where(EVALUATIONS.c.evaluation == number)).one_or_none()
        if row is None:
            raise RefusedError(404, "unknown", f"there is no evaluation {number}")
        if row.device != device:
            raise RefusedError(403, "not_yours", f"evaluation {number} is another device's")
        if row.reported_s is not None:
            if {name: getattr(row, name) for name in given} != given:
                raise RefusedError(409, "other_report", "another report on this evaluation counts: this one does not")
            return EvaluationAnswer(code="repeated")
        measured = Measured(
            num_held_out=report.num_held_out, tried=_number(report.tried), released=_number(report.released)
        )

        def reported(gate: ReleaseGate, at_s: float) -> tuple[EvaluationCode, list[Change], list[Write]]:
            code, changes = gate.report(number, measured, at_s)
            if code is not EvaluationCode.COUNTED:
                return code, changes, []
            return (
                code,
                changes,
                [lambda connection: _update_reported(connection, number, {**given, "reported_s": at_s})],
            )

        code = self._decide(reported, now_s=now_s)
        if code is not EvaluationCode.COUNTED:
            raise RefusedError(409, "over", "the evaluation does not count: this version is not evaluated any more")
        return EvaluationAnswer(code="counted")

    def _decide(self, tell: Callable[[ReleaseGate, float], tuple[T, list[Change], list[Write]]], *, now_s: float) -> T:
        """Rule 2."""
        assert self._plan is not None
        assert self._gate is not None
        gate = ReleaseGate.restore(self._plan, self._gate.state())
        answer, changes, writes = tell(gate, max(now_s, gate.now_s))

        def write(connection: sa.Connection) -> None:
            for one in writes:
                one(connection)
            for change in changes:
                _write_change(connection, change)

        self._write(gate, write)
        self._gate = gate
        for change in changes:
            self._told(change)
        return answer

    def _settle(self) -> None:
        """After a transaction failed: whether it is written, the database knows."""
        if self._in_doubt:
            self._gate = self._read_back() or self._gate
            self._in_doubt = False

    def _read_back(self) -> ReleaseGate | None:
        assert self._plan is not None
        with self._database.connect() as connection:
            state = connection.execute(sa.select(GATE.c.state)).scalar_one_or_none()
        return None if state is None else ReleaseGate.restore(self._plan, json.loads(state))

    def _write(self, gate: ReleaseGate, write: Callable[[sa.Connection], Any]) -> None:
        try:
            with self._leadership.begin() as connection:
                write(connection)
                connection.execute(sa.delete(GATE))
                connection.execute(sa.insert(GATE), {"number": 0, "state": json.dumps(gate.state())})
        except BaseException:
            self._in_doubt = True
            raise


def _insert_asked(connection: sa.Connection, evaluation: Evaluation, device: int, at_s: float) -> None:
    known = sa.select(EVALUATIONS.c.evaluation).where(EVALUATIONS.c.evaluation == evaluation.number)
    if connection.execute(known).one_or_none() is not None:
        return
    row = {
        "evaluation": evaluation.number,
        "device": device,
        "stage": evaluation.stage.value,
        "version": evaluation.version,
        "released_version": evaluation.released,
        "asked_s": at_s,
    }
    connection.execute(sa.insert(EVALUATIONS), row)


def _update_reported(connection: sa.Connection, number: int, values: dict[str, Any]) -> None:
    connection.execute(sa.update(EVALUATIONS).where(EVALUATIONS.c.evaluation == number).values(**values))


def _write_change(connection: sa.Connection, change: Change) -> None:
    row: dict[str, Any] = {"state": change.state.value, "since_s": change.time_s, "reason": change.reason}
    if change.verdict is not None:
        told = {"tried": change.verdict.tried, "released": change.verdict.released}
        row |= {name: value if math.isfinite(value) else None for name, value in told.items()}
        row["evaluations"] = change.verdict.reports
    changed = connection.execute(sa.update(RELEASES).where(RELEASES.c.version == change.version).values(**row))
    if changed.rowcount == 0:
        connection.execute(sa.insert(RELEASES), {"version": change.version, "evaluations": 0} | row)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
