"""Versions tried by devices over HTTP: what is worse reaches nobody, and whoever is told is told for good."""

import asyncio
import contextlib
import tempfile
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny_service import BASE, Phone, Running, running, tiny_plan, update_bytes

from pocketfleet.errors import InputError
from pocketfleet.training.draws import draw_key, uniform
from pocketfleet.training.release_gate import ReleaseGate
from pocketfleet.training.release_verdict import Measured, ReleasePlan
from pocketfleet.training.server import administration
from pocketfleet.training.server.database import EVALUATIONS, open_database
from pocketfleet.training.server.protocol import EvaluationReport
from pocketfleet.training.server.refusal import RefusedError
from pocketfleet.training.server.releases import Releases
from pocketfleet.training.server.service_plan import Limits, ServicePlan

Result = TypeVar("Result")
GATE = ReleasePlan(
    seed=7,
    evaluation_reports=2,
    canary_ratio=0.0,
    canary_reports=1,
    over_selection=1.0,
    minimum_ratio=0.5,
    report_within_s=600.0,
    deadline_s=600.0,
)
# What the devices' examples want of the weights.
WANTED = torch.ones(3)


def of(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(work)


def gated(folder: Path, **changed: float) -> ServicePlan:
    return tiny_plan(folder, release=replace(GATE, **changed))


async def evaluation(phone: Phone) -> dict[str, Any]:
    found = (await phone.check_in(evaluates=True))["evaluation"]
    assert found is not None
    work: dict[str, Any] = found
    return work


async def send(phone: Phone, number: int, report: dict[str, Any]) -> tuple[int, str]:
    answer = await phone.client.put(f"{BASE}/evaluations/{number}", json=report, headers=phone.headers)
    told = answer.json()
    return answer.status_code, told["error"]["code"] if answer.status_code >= 400 else told["code"]


async def measured(phone: Phone, work: dict[str, Any]) -> dict[str, Any]:
    """As a device does: it downloads both versions and measures them."""
    losses = {}
    for name in ("tried", "released"):
        weights = (await phone.weights(work[name]["weights"]))["w"]
        losses[name] = float((weights - WANTED).square().mean())
    return {"num_held_out": 5, **losses}


async def evaluate(phones: list[Phone]) -> None:
    for phone in phones:
        work = await evaluation(phone)
        assert await send(phone, work["evaluation_id"], await measured(phone, work)) == (200, "counted")


async def train(run: Running, phones: list[Phone], *bodies: bytes) -> None:
    """A round of two reports, and the gate knows of its version."""
    parts = run.service.upkeep.leader
    assert parts is not None
    version = parts.versions.newest.version
    for phone, body in zip(phones, bodies, strict=True):
        work = await phone.assigned()
        assert (await phone.report(work["assignment_id"], body)).status_code == 200
    await run.version(version + 1)
    for _ in range(400):
        if not run.service.upkeep.preparing:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the version is not published")


async def released(phone: Phone) -> int:
    return int((await phone.check_in())["released"]["version"])


async def comes_to(phone: Phone, version: int) -> None:
    """What an administrator decided is seen within a second, of a machine that has time."""
    for _ in range(200):
        if await released(phone) == version:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"the device is not told to use version {version}")


def states(folder: Path) -> list[tuple[str | None, str | None, bool]]:
    return [(row["state"], row["reason"], row["in_use"]) for row in administration.model_rows(folder)]


def test_a_poisoned_version_is_held_back(tmp_path: Path) -> None:
    async def rounds() -> None:
        async with running(gated(tmp_path / "plan"), tmp_path / "state") as run:
            phones = [await run.phone() for _ in range(2)]
            good = update_bytes(0.5, 0.5, 0.5)
            await train(run, phones, good, good)
            assert await released(phones[0]) == 0
            await evaluate(phones)
            assert await released(phones[0]) == 1
            # One device reports a huge update of finite numbers: the mean is ruined, and with it version 2.
            await train(run, phones, good, update_bytes(-1e6, 1e6, -1e6))
            await evaluate(phones)
            answer = await phones[0].check_in()
            assert answer["released"]["version"] == 1
            assert torch.equal((await phones[0].weights(answer["released"]["weights"]))["w"], torch.full((3,), 0.5))
            # Training goes on from it all the same: what the poison broke, later rounds may mend.
            assert answer["assignment"]["model_version"] == 2
            assert 'pocketfleet_releases_total{state="held_back"} 1.0' in run.service.metrics.text().decode()
        assert states(tmp_path / "state") == [
            ("retired", "newer", False),
            ("released", "passed", True),
            ("held_back", "worse", False),
        ]

    of(rounds())


def test_a_canary_is_used_by_its_share_and_rolled_back_when_worse(tmp_path: Path) -> None:
    async def rounds() -> None:
        plan = gated(tmp_path / "plan", canary_ratio=0.5, canary_reports=1)
        async with running(plan, tmp_path / "state") as run:
            phones = [await run.phone() for _ in range(8)]
            share = [number for number in range(8) if uniform(draw_key(7, "canary", 1, number), 1)[0] < 0.5]
            assert 0 < len(share) < 8
            good = update_bytes(0.5, 0.5, 0.5)
            await train(run, phones[:2], good, good)
            await evaluate(phones[:2])
            used = [await released(phone) for phone in phones]
            assert [number for number, version in enumerate(used) if version == 1] == share
            # Those who use it find it worse than the others thought.
            work = await evaluation(phones[share[0]])
            assert (work["stage"], work["tried"]["version"], work["released"]["version"]) == ("canary", 1, 0)
            report = {"num_held_out": 5, "tried": None, "released": 1.0}
            assert await send(phones[share[0]], work["evaluation_id"], report) == (200, "counted")
            assert {await released(phone) for phone in phones} == {0}
        assert states(tmp_path / "state") == [("released", "made", True), ("rolled_back", "worse", False)]

    of(rounds())


def test_a_roll_back_is_served_at_the_next_check_in(tmp_path: Path) -> None:
    async def rounds() -> None:
        async with running(gated(tmp_path / "plan"), tmp_path / "state") as run:
            phones = [await run.phone() for _ in range(2)]
            good = update_bytes(0.5, 0.5, 0.5)
            await train(run, phones, good, good)
            await evaluate(phones)
            assert await released(phones[0]) == 1
            administration.roll_back(run.folder, 0)
            await comes_to(phones[0], 0)
            await train(run, phones, good, good)
            # Nobody is asked about version 2 until the choice is taken back.
            assert (await phones[0].check_in(evaluates=True))["evaluation"] is None
            assert states(run.folder)[2] == ("waiting", "made", False)
            with pytest.raises(InputError, match="devices use version 0: roll back to an older one, got 0"):
                administration.roll_back(run.folder, 0)
            administration.unpin(run.folder)
            # Only then anybody is asked about version 2.
            for _ in range(200):
                if states(run.folder)[2][0] != "waiting":
                    break
                await asyncio.sleep(0.1)
            await evaluate(phones)
            assert await released(phones[0]) == 2

    of(rounds())


def test_a_canary_can_be_rolled_back_to_what_the_others_use(tmp_path: Path) -> None:
    async def rounds() -> None:
        async with running(gated(tmp_path / "plan", canary_ratio=1.0), tmp_path / "state") as run:
            phones = [await run.phone() for _ in range(2)]
            good = update_bytes(0.5, 0.5, 0.5)
            await train(run, phones, good, good)
            await evaluate(phones)
            assert await released(phones[0]) == 1
            administration.roll_back(run.folder, 0)
            await comes_to(phones[0], 0)
            assert states(run.folder)[1] == ("rolled_back", "administrator", False)

    of(rounds())


def test_a_restart_goes_on_in_the_middle_of_a_trial(tmp_path: Path, database_url: str) -> None:
    plan = gated(tmp_path / "plan")

    async def before() -> tuple[list[str], dict[str, Any], dict[str, Any]]:
        async with running(plan, tmp_path / "state", database_url=database_url) as run:
            phones = [await run.phone() for _ in range(2)]
            good = update_bytes(0.5, 0.5, 0.5)
            await train(run, phones, good, good)
            works = [await evaluation(phone) for phone in phones]
            report = await measured(phones[0], works[0])
            assert await send(phones[0], works[0]["evaluation_id"], report) == (200, "counted")
            return [phone.credential for phone in phones], works[1], report

    async def after(credentials: list[str], work: dict[str, Any], report: dict[str, Any]) -> None:
        async with running(plan, tmp_path / "state", database_url=database_url) as run:
            phones = [Phone(run.client, credential) for credential in credentials]
            # The same work again, and what was acknowledged still counts.
            assert (await evaluation(phones[1])) == work | {
                "deadline_in_s": pytest.approx(work["deadline_in_s"], abs=60)
            }
            assert await send(phones[0], 0, report) == (200, "repeated")
            assert await send(phones[0], 0, report | {"tried": 9.0}) == (409, "other_report")
            assert await send(phones[1], work["evaluation_id"], report) == (200, "counted")
            assert await released(phones[0]) == 1
        rows = administration.model_rows(tmp_path / "state", database_url=database_url)
        assert [row["state"] for row in rows] == ["retired", "released"]

    of(after(*of(before())))


def test_a_version_that_the_gate_never_heard_of_is_tried_after_a_restart(tmp_path: Path) -> None:
    plan = gated(tmp_path / "plan")
    good = update_bytes(0.5, 0.5, 0.5)

    async def before(monkeypatch: pytest.MonkeyPatch) -> list[str]:
        async with running(plan, tmp_path / "state") as run:
            phones = [await run.phone() for _ in range(2)]
            parts = run.service.upkeep.leader
            assert parts is not None
            # As if it were killed between the version and the gate.
            monkeypatch.setattr(parts.releases, "made", lambda *_, **__: None)
            await train(run, phones, good, good)
            return [phone.credential for phone in phones]

    async def after(credentials: list[str]) -> None:
        async with running(plan, tmp_path / "state") as run:
            phones = [Phone(run.client, credential) for credential in credentials]
            await evaluate(phones)
            assert await released(phones[0]) == 1

    with pytest.MonkeyPatch.context() as patch:
        credentials = of(before(patch))
    of(after(credentials))


def test_what_was_not_written_never_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def rounds() -> None:
        async with running(gated(tmp_path / "plan", evaluation_reports=1), tmp_path / "state") as run:
            phones = [await run.phone() for _ in range(2)]
            good = update_bytes(0.5, 0.5, 0.5)
            await train(run, phones, good, good)
            work = await evaluation(phones[0])
            report = await measured(phones[0], work)

            def full(*_: object) -> None:
                raise sa.exc.OperationalError("INSERT", {}, Exception("database or disk is full"))

            with monkeypatch.context() as patch:
                patch.setattr("pocketfleet.training.server.releases._write_change", full)
                assert await send(phones[0], work["evaluation_id"], report) == (503, "storage")
                assert await released(phones[0]) == 0
            assert await send(phones[0], work["evaluation_id"], report) == (200, "counted")
            assert await released(phones[0]) == 1

    of(rounds())


def test_an_evaluation_is_its_devices_own(tmp_path: Path) -> None:
    async def rounds() -> None:
        async with running(gated(tmp_path / "plan"), tmp_path / "state") as run:
            phones = [await run.phone() for _ in range(3)]
            good = update_bytes(0.5, 0.5, 0.5)
            await train(run, phones[:2], good, good)
            # A device that does not say that it evaluates is not asked, one more than are wanted is not either.
            assert (await phones[0].check_in())["evaluation"] is None
            first, second = [await evaluation(phone) for phone in phones[:2]]
            assert (await phones[2].check_in(evaluates=True))["evaluation"] is None
            report = await measured(phones[0], first)
            assert await send(phones[1], first["evaluation_id"], report) == (403, "not_yours")
            assert await send(phones[1], 99, report) == (404, "unknown")
            for path in ("-1", "1e3", "٣", "9" * 40):
                answer = await run.client.put(f"{BASE}/evaluations/{path}", headers=phones[0].headers, json=report)
                assert answer.status_code in {404, 422}, path
            for wrong in ({}, report | {"num_held_out": 0}, report | {"tried": "0.5"}):
                answer = await run.client.put(f"{BASE}/evaluations/0", headers=phones[0].headers, json=wrong)
                assert (answer.status_code, answer.json()["error"]["code"]) == (422, "wrong_message")
            assert await send(phones[0], first["evaluation_id"], report) == (200, "counted")
            assert await send(phones[1], second["evaluation_id"], report) == (200, "counted")
            database = open_database(run.folder)
            with database.connect() as connection:
                rows = connection.execute(sa.select(EVALUATIONS).order_by(EVALUATIONS.c.evaluation)).all()
            database.dispose()
            assert [(row.device, row.stage, row.version, row.num_held_out) for row in rows] == [
                (0, "candidate", 1, 5),
                (1, "candidate", 1, 5),
            ]

    of(rounds())


def test_a_report_after_the_verdict_is_told_that_it_is_over(tmp_path: Path) -> None:
    async def rounds() -> None:
        async with running(gated(tmp_path / "plan", over_selection=1.5), tmp_path / "state") as run:
            phones = [await run.phone() for _ in range(3)]
            good = update_bytes(0.5, 0.5, 0.5)
            await train(run, phones[:2], good, good)
            works = [await evaluation(phone) for phone in phones]
            report = await measured(phones[0], works[0])
            answers = [
                await send(phone, work["evaluation_id"], report) for phone, work in zip(phones, works, strict=True)
            ]
            assert answers == [(200, "counted"), (200, "counted"), (409, "over")]

    of(rounds())


def test_a_deadline_passes_with_nobody_asking(tmp_path: Path) -> None:
    async def rounds() -> None:
        async with running(gated(tmp_path / "plan", deadline_s=0.4), tmp_path / "state") as run:
            phones = [await run.phone() for _ in range(2)]
            good = update_bytes(0.5, 0.5, 0.5)
            await train(run, phones, good, good)
            for _ in range(200):
                if states(run.folder)[1][0] == "held_back":
                    break
                await asyncio.sleep(0.1)
            assert states(run.folder)[1] == ("held_back", "too_few", False)

    of(rounds())


def test_the_last_version_is_evaluated_when_training_is_over(tmp_path: Path) -> None:
    async def rounds() -> None:
        plan = replace(gated(tmp_path / "plan"), count=1)
        async with running(plan, tmp_path / "state") as run:
            phones = [await run.phone() for _ in range(2)]
            good = update_bytes(0.5, 0.5, 0.5)
            await train(run, phones, good, good)
            assert (await phones[0].check_in())["turned_away"]["reason"] == "finished"
            await evaluate(phones)
            assert await released(phones[0]) == 1

    of(rounds())


def test_without_a_gate_nobody_is_asked_and_the_newest_is_used(tmp_path: Path) -> None:
    async def rounds() -> None:
        limits = Limits(device_requests_per_s=0.0, longest_retry_s=0.05, max_devices=10)
        async with running(tiny_plan(tmp_path / "plan", limits=limits), tmp_path / "state") as run:
            phones = [await run.phone() for _ in range(2)]
            good = update_bytes(0.5, 0.5, 0.5)
            await train(run, phones, good, good)
            answer = await phones[0].check_in(evaluates=True)
            assert (answer["evaluation"], answer["released"]["version"]) == (None, 1)
            administration.roll_back(run.folder, 0)
            await comes_to(phones[0], 0)
            administration.unpin(run.folder)
            await comes_to(phones[0], 1)
        assert states(tmp_path / "state") == [(None, None, False), (None, None, True)]

    of(rounds())


# Failures of the database and restarts


class Failing:
    """A leadership whose next transaction fails, before it is written or just after."""

    def __init__(self, database: sa.Engine) -> None:
        self.database, self.fault = database, ""

    @contextlib.contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        fault, self.fault = self.fault, ""
        with self.database.begin() as connection:
            yield connection
            if fault == "before":
                raise sa.exc.OperationalError("COMMIT", {}, Exception("disk I/O error"))
        if fault == "after":
            raise sa.exc.OperationalError("COMMIT", {}, Exception("connection lost"))

    def acquire(self) -> bool:
        return True

    def confirm(self) -> bool:
        return True

    def release(self) -> None:
        return None


def loaded(leadership: Failing, *, newest: int, chosen: int, now_s: float) -> Releases:
    found = Releases(DURABLE, database=leadership.database, leadership=leadership, told=[].append)
    found.load(newest=newest, chosen=chosen, now_s=now_s)
    return found


DURABLE = replace(GATE, canary_ratio=0.5, over_selection=1.5, deadline_s=100.0)
EVENTS = st.one_of(
    st.tuples(st.just("made"), st.just(0)),
    st.tuples(st.just("ask"), st.integers(0, 2)),
    st.tuples(st.just("ask"), st.integers(0, 2)),
    st.tuples(st.just("report"), st.integers(0, 2)),
    st.tuples(st.just("report"), st.integers(0, 2)),
    st.tuples(st.just("choose"), st.integers(-1, 3)),
    st.tuples(st.just("wait"), st.integers(1, 60)),
)


# A report whose transaction is written although it failed, and which is sent again.
@example([(("made", 0), "", True), (("ask", 1), "after", True), (("report", 1), "after", True)])
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(EVENTS, st.sampled_from(["", "", "before", "after", "restart"]), st.booleans()), max_size=40))
def test_failures_and_restarts_change_nothing(tmp_path: Path, events: list[tuple[tuple[str, int], str, bool]]) -> None:
    """The same as a gate in memory that was told everything once."""
    database = open_database(Path(tempfile.mkdtemp(dir=tmp_path)))
    leadership = Failing(database)
    now_s, newest, chosen, asked, refused = 0.0, 0, -1, {}, []
    plain = ReleaseGate(DURABLE)
    releases = loaded(leadership, newest=0, chosen=-1, now_s=0.0)
    for (kind, value), fault, better in events:
        if fault == "restart":
            releases = loaded(leadership, newest=newest, chosen=chosen, now_s=now_s)
        if kind == "report" and value not in asked:
            continue
        now_s += value if kind == "wait" else 0.0
        newest += kind == "made"
        chosen = min(value, newest) if kind == "choose" else chosen
        report = EvaluationReport(num_held_out=4, tried=0.5 if better else 2.0, released=1.0)
        for attempt in range(2):
            leadership.fault = fault if attempt == 0 and fault in {"before", "after"} else ""
            try:
                if kind == "made":
                    releases.made(newest, now_s=now_s)
                elif kind == "ask":
                    evaluation = releases.ask(value, now_s=now_s)
                elif kind == "report":
                    releases.report(value, asked[value], report, now_s=now_s)
                else:
                    releases.look(chosen=chosen, now_s=now_s)
            except sa.exc.OperationalError:
                assert attempt == 0
                continue
            except RefusedError as refusal:
                refused.append(refusal.code)
            break
        leadership.fault = ""
        if kind == "made":
            plain.made(newest, now_s)
        elif kind == "ask":
            plain.advance(now_s)
            assert evaluation == plain.ask(value, now_s)
            if evaluation is not None:
                asked[value] = evaluation.number
        elif kind == "report":
            plain.report(asked[value], Measured(num_held_out=4, tried=report.tried, released=1.0), now_s)
        elif chosen >= 0 and not (plain.chosen and plain.released == chosen):
            plain.choose(chosen, now_s)
        elif chosen < 0 and plain.chosen:
            plain.let_go(now_s)
        else:
            plain.advance(now_s)
        # A look that changes nothing is not told.
        gate = releases._gate
        assert gate is not None
        assert gate.state() | {"now_s": 0.0} == plain.state() | {"now_s": 0.0}
    assert set(refused) <= {"over", "other_report"}
    database.dispose()
