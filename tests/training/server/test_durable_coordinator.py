"""Whatever fails and whenever it starts again: the same answers as if nothing had happened."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres_server import PostgresServer

from pocketfleet.errors import PocketfleetError
from pocketfleet.training.buffered_coordinator import BufferedCoordinator
from pocketfleet.training.coordinator import Coordinator
from pocketfleet.training.round import BufferedPlan, CheckInCode, ReportCode, RoundPlan
from pocketfleet.training.selection import Uniform
from pocketfleet.training.server import durable_coordinator
from pocketfleet.training.server.database import DECISIONS, REPORTS, ROUNDS, SNAPSHOTS, open_database
from pocketfleet.training.server.durable_coordinator import (
    Answer,
    Ask,
    CheckInAsk,
    DurableCoordinator,
    Move,
    ReportAsk,
    StorageError,
)
from pocketfleet.training.server.leadership import FolderLeadership
from pocketfleet.training.server.protocol import ReportFacts

POPULATION = 5
PLANS: dict[str, RoundPlan | BufferedPlan] = {
    "synchronous": RoundPlan(cohort=2, over_selection=1.5, minimum_ratio=0.5, deadline_s=30.0, interval_s=5.0),
    "window": RoundPlan(cohort=2, over_selection=1.0, minimum_ratio=0.5, deadline_s=30.0, selection_window_s=4.0),
    "buffered": BufferedPlan(buffer=2, concurrency=3, max_staleness=1, deadline_s=30.0),
}


class FailingLeadership(FolderLeadership):
    """Real transactions, some of which the database does not take."""

    fails = False

    @contextlib.contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        with super().begin() as connection:
            yield connection
            if self.fails:
                raise sa.exc.OperationalError("COMMIT", None, Exception("disk I/O error"))


def opened(
    folder: Path, plan: RoundPlan | BufferedPlan, database_url: str = ""
) -> tuple[DurableCoordinator, FailingLeadership, sa.Engine]:
    database = open_database(folder, database_url)
    leadership = FailingLeadership(database, folder)
    kind = Coordinator if isinstance(plan, RoundPlan) else BufferedCoordinator
    made = DurableCoordinator(
        database,
        leadership,
        make=lambda: kind(plan, population=POPULATION, **chosen(plan)),
        restore=lambda state: kind.restore(plan, state, **chosen(plan)),
        population=lambda: POPULATION,
    )
    return made, leadership, database


def chosen(plan: RoundPlan | BufferedPlan) -> dict[str, object]:
    return {"selection": Uniform(seed=1, population=POPULATION)} if isinstance(plan, RoundPlan) else {}


def facts(examples: int = 3) -> ReportFacts:
    return ReportFacts(num_examples=examples, steps=1, examples_held=5, train_loss=0.5)


def report(assignment: int, device: int) -> ReportAsk:
    return ReportAsk(device=device, assignment=assignment, facts=facts(), sha256=f"{assignment:064x}", bytes=9)


def asks_of(draw: list[tuple[str, int]], owners: dict[int, int]) -> list[Ask]:
    """Asks as devices may bring them: reports on what was handed out."""
    found: list[Ask] = []
    for kind, number in draw:
        if kind == "check_in":
            found.append(CheckInAsk(device=number % POPULATION, note="{}"))
        elif kind == "report" and owners:
            assignment = sorted(owners)[number % len(owners)]
            found.append(report(assignment, owners[assignment]))
        elif kind == "move":
            found.append(Move())
    return found


# What devices do, how much later, and what goes wrong.
Drawn = list[tuple[list[tuple[str, int]], float, str]]
Batches = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from(["check_in", "report", "move"]), st.integers(0, 50)), max_size=6),
        st.floats(0.0, 20.0),
        st.sampled_from(["", "", "restart", "fail", "fail and restart"]),
    ),
    max_size=12,
)


@pytest.mark.parametrize("name", list(PLANS))
@settings(max_examples=20, deadline=None)
@given(batches=Batches)
def test_failures_and_restarts_change_no_answer(name: str, batches: Drawn) -> None:
    check_answers(PLANS[name], batches, "", "")


@pytest.mark.parametrize("name", list(PLANS))
def test_nor_do_they_on_postgresql(name: str, postgres: PostgresServer) -> None:
    @settings(max_examples=4, deadline=None)
    @given(batches=Batches)
    def check(batches: Drawn) -> None:
        check_answers(PLANS[name], batches, postgres.new_database(), postgres.new_database())

    check()


def check_answers(plan: RoundPlan | BufferedPlan, batches: Drawn, calm_url: str, rough_url: str) -> None:
    with tempfile.TemporaryDirectory() as calm, tempfile.TemporaryDirectory() as rough:
        steady, _, steady_database = opened(Path(calm), plan, calm_url)
        shaken, leadership, database = opened(Path(rough), plan, rough_url)
        owners: dict[int, int] = {}
        now_s = 0.0
        try:
            for draw, later_s, event in batches:
                now_s += later_s
                asks = asks_of(draw, owners)
                if not asks:
                    continue
                if event.startswith("fail"):
                    leadership.fails = True
                    with pytest.raises(StorageError, match="disk I/O error"):
                        shaken.decide(asks, now_s=now_s)
                    leadership.fails = False
                if event.endswith("restart"):
                    database.dispose()
                    shaken, leadership, database = opened(Path(rough), plan, rough_url)
                expected, found = steady.decide(asks, now_s=now_s), shaken.decide(asks, now_s=now_s)
                # Texts, in which nan is nan.
                assert repr(found.answers) == repr(expected.answers)
                assert [one.assignment_id.tolist() for one in found.closed] == [
                    one.assignment_id.tolist() for one in expected.closed
                ]
                for ask, answer in zip(asks, expected.answers, strict=True):
                    if isinstance(ask, CheckInAsk) and getattr(answer, "code", None) is CheckInCode.ASSIGNED:
                        owners[answer.assignment] = ask.device  # type: ignore[union-attr]
            assert books(database) == books(steady_database)
        finally:
            database.dispose()
            steady_database.dispose()


def books(database: sa.Engine) -> list[list[tuple[object, ...]]]:
    with database.connect() as connection:
        return [
            [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key.columns))]
            for table in (REPORTS, ROUNDS)
        ]


def played(coordinator: DurableCoordinator, *, rounds: int) -> list[Answer]:
    answers: list[Answer] = []
    for number in range(rounds):
        checked = coordinator.decide([CheckInAsk(device=one, note="") for one in (0, 1)], now_s=10.0 * number)
        ids = [answer.assignment for answer in checked.answers]  # type: ignore[union-attr]
        answers += coordinator.decide(
            [report(one, device) for device, one in enumerate(ids)], now_s=10.0 * number + 1
        ).answers
    return answers


def test_a_snapshot_saves_the_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_coordinator, "_SNAPSHOT_EVERY", 10)
    coordinator, _, database = opened(tmp_path, PLANS["synchronous"])
    played(coordinator, rounds=8)
    with database.connect() as connection:
        kept = connection.execute(sa.select(SNAPSHOTS.c.sequence).order_by(SNAPSHOTS.c.sequence)).scalars().all()
    # Four decisions a round: after the third, and then after every third; the last but one is kept.
    assert kept == [12, 24]
    # What is before it is not looked at any more.
    with database.begin() as connection:
        connection.execute(sa.delete(DECISIONS).where(DECISIONS.c.sequence < 24))
    database.dispose()
    again, _, database = opened(tmp_path, PLANS["synchronous"])
    assert (again.rounds.round, again.rounds.model_version) == (8, 8)
    (answer,) = again.decide([report(0, 0)], now_s=100.0).answers
    assert answer.code is ReportCode.REPEATED  # type: ignore[union-attr]
    database.dispose()


def test_a_journal_that_does_not_come_out_the_same_stops_the_service(tmp_path: Path) -> None:
    coordinator, _, database = opened(tmp_path, PLANS["synchronous"])
    played(coordinator, rounds=2)
    with database.begin() as connection:
        connection.execute(sa.update(DECISIONS).where(DECISIONS.c.sequence == 1).values(device=0))
    database.dispose()
    with pytest.raises(PocketfleetError, match="come out otherwise than they were written down"):
        opened(tmp_path, PLANS["synchronous"])


def test_time_does_not_go_back_with_the_clock(tmp_path: Path) -> None:
    coordinator, _, database = opened(tmp_path, PLANS["synchronous"])
    coordinator.decide([CheckInAsk(device=0, note="")], now_s=100.0)
    (answer,) = coordinator.decide([CheckInAsk(device=1, note="")], now_s=3.0).answers
    assert answer.time_s == 100.0  # type: ignore[union-attr]
    database.dispose()
