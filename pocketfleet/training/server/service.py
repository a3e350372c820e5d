"""One population's service: what each request means, whoever brings it.

Rules:

1. One process leads: it alone decides (``leadership``). Until it does, and after it does no more, everything is refused
   with STANDBY, to be asked again.
2. One thread decides and writes to the database. Others receive, check and add up updates; none of them holds up the
   loop that serves requests.
3. While a closed round is not yet a version nobody gets work: the next round trains from it.
4. A report is acknowledged once its file and the decision to count it are on the disk.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from pocketfleet.training.release_gate import Change
from pocketfleet.training.round import CheckInCode, ReportCode
from pocketfleet.training.server.blob_folder import BlobFolder
from pocketfleet.training.server.database import AUDIT, BENCHMARKS, REPORTS, open_database
from pocketfleet.training.server.decision_queue import DecisionQueue
from pocketfleet.training.server.device_register import Device
from pocketfleet.training.server.downloads import Download, Downloads
from pocketfleet.training.server.durable_coordinator import (
    Ask,
    CheckedIn,
    CheckInAsk,
    Decided,
    Move,
    ReportAsk,
    Reported,
    StorageError,
)
from pocketfleet.training.server.facts import Controls, controls, read_facts
from pocketfleet.training.server.leader import Leader, read_back
from pocketfleet.training.server.leadership import Leadership, leadership
from pocketfleet.training.server.live_figures import LiveFigures, LiveReader
from pocketfleet.training.server.minute_counts import MinuteCounts
from pocketfleet.training.server.model_versions import Made
from pocketfleet.training.server.protocol import (
    BenchmarkResult,
    CheckIn,
    CheckInAnswer,
    Enrolled,
    Enrolment,
    EvaluationAnswer,
    EvaluationReport,
    EvaluationWork,
    ReleasedModel,
    ReportAnswer,
    ReportFacts,
    Status,
    TurnedAway,
)
from pocketfleet.training.server.refusal import RefusedError
from pocketfleet.training.server.service_log import ServiceLog
from pocketfleet.training.server.service_metrics import ServiceMetrics
from pocketfleet.training.server.service_plan import ServicePlan
from pocketfleet.training.server.update_check import check_facts, checked_update
from pocketfleet.training.server.update_files import Received, UpdateFiles
from pocketfleet.training.server.work_offered import (
    assignment,
    chosen_program,
    evaluation_work,
    incapable,
    turned_away,
)

__all__ = ["Service"]

T = TypeVar("T")
# How often the service looks for deadlines, administrators' changes, and whether it still leads; seconds.
_LOOK_S = 0.25
_CONTROL_S = 1.0
# How often it looks for files that nobody needs; our choice: what is being sent when they are hidden takes less.
_RETENTION_S = 30.0
# After a failure of the disk or the database; our choice.
_STORAGE_RETRY_S = 5.0
_STANDBY_RETRY_S = 1.0
_PREPARING_RETRY_S = 0.25
# So long a device that was given work waits for its model, which takes milliseconds as a rule.
_MAKING_S = 20.0
# Threads that check updates and wait for the disk, which takes several files as fast as one; so many are in memory.
_CHECKERS = 8

_NOT_COUNTED = {
    ReportCode.LATE: "the round has all the reports that it wants",
    ReportCode.DEADLINE_PASSED: "the round's deadline has passed",
    ReportCode.WITHDRAWN: "this device has checked in again since, and lost this assignment",
    ReportCode.STALE: "the model has moved on too far since this assignment",
}


class Service:
    """See the module's rules.

    Args:
        plan: what is served.
        folder: for files, and the SQLite database.
        database_url: of another database; empty: SQLite.
        log: where it tells what happens.
    """

    def __init__(self, plan: ServicePlan, folder: Path, *, database_url: str = "", log: ServiceLog) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.plan = plan
        self.metrics = ServiceMetrics()
        self.log = log
        self._database = open_database(folder, database_url)
        self._leadership: Leadership = leadership(self._database, folder, plan.population)
        self.live = LiveReader(self._database, plan)
        self._minutes = MinuteCounts(deadline_s=plan.rounds.deadline_s, lost=self.metrics.dropouts.inc)
        self._blobs = BlobFolder(folder / "files")
        self._updates = UpdateFiles(folder / "updates")
        self._writer = ThreadPoolExecutor(1, "decisions")
        self._checkers = ThreadPoolExecutor(_CHECKERS, "checks")
        self._maker = ThreadPoolExecutor(1, "versions")
        self._queue = DecisionQueue(self._decide)
        self._parts: Leader | None = None
        self._controls = Controls()
        self._downloads = Downloads(plan, database=self._database, blobs=self._blobs)
        self._published = asyncio.Condition()
        self._preparing = True
        self._closed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # Life

    async def start(self) -> None:
        """Begin to lead, or to wait for it; returns once the first try is over."""
        await self._try_to_lead()
        after = (self._look_after_time, self._look_after_controls, self._look_after_files)
        for work in (self._queue.run, *after, self._make_versions):
            self._tasks.append(asyncio.create_task(work()))

    async def stop(self) -> None:
        """Finish what is being decided, then let go."""
        while self._queue.length and self._parts is not None:
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for threads in (self._checkers, self._maker, self._writer):
            await asyncio.to_thread(threads.shutdown)
        self._leadership.release()
        self._database.dispose()

    @property
    def leads(self) -> bool:
        """Whether this process decides."""
        return self._parts is not None

    @property
    def admin_sha256(self) -> str:
        """Of the administrator's credential; empty: there is none."""
        return self._controls.admin_sha256

    @property
    def finished(self) -> bool:
        """Whether all versions are made."""
        return self._parts is not None and self._parts.versions.newest.version >= self.plan.count

    def _leading(self) -> Leader:
        if self._parts is None:
            raise RefusedError(
                503, "standby", "this server does not lead: ask again, or another one", retry_after_s=_STANDBY_RETRY_S
            )
        return self._parts

    async def _in(self, threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, call)

    async def _try_to_lead(self) -> None:
        if self._parts is not None:
            return
        try:
            parts = await self._in(self._writer, self._begin)
        except (sa.exc.SQLAlchemyError, StorageError, OSError) as exc:
            self.log.write("cannot_lead", why=str(exc).splitlines()[0])
            return
        if parts is not None:
            self._parts = parts
            self._preparing = True
            self._closed.set()
            self.log.write("leads", population=self.plan.population, version=parts.versions.newest.version)

    def _begin(self) -> Leader | None:
        """Take the lead, if it is free, and read everything back."""
        if not self._leadership.acquire():
            return None
        try:
            leader = read_back(
                self.plan,
                database=self._database,
                leadership=self._leadership,
                blobs=self._blobs,
                updates=self._updates,
                downloads=self._downloads,
                told=self._tell_release,
            )
        except BaseException:
            self._leadership.release()
            raise
        self._controls = leader.controls
        return leader

    def _tell_release(self, change: Change) -> None:
        self.metrics.releases.labels(change.state.value).inc()
        self.log.write("release", version=change.version, state=change.state.value, why=change.reason)

    # What goes on by itself

    async def _decide(self, asks: Sequence[Ask]) -> Decided:
        parts = self._leading()
        try:
            decided = await self._in(self._writer, lambda: self._decided(parts, asks))
        except StorageError as exc:
            self.log.write("storage_failed", why=str(exc))
            self.metrics.storage_failures.inc()
            raise
        for closed in decided.closed:
            self.metrics.rounds.labels(closed.reason if closed.succeeded else "abandoned").inc()
            self.log.write(
                "round_closed",
                round=closed.round,
                reason=closed.reason,
                succeeded=closed.succeeded,
                accepted=len(closed.device),
                assigned=closed.assigned,
            )
        if any(closed.succeeded for closed in decided.closed):
            self._preparing = True
            self._closed.set()
        return decided

    def _decided(self, parts: Leader, asks: Sequence[Ask]) -> Decided:
        if any(isinstance(ask, ReportAsk) for ask in asks):
            try:
                self._updates.sync()
            except OSError as exc:
                raise StorageError(f"the disk did not take {len(asks)} decisions: {exc.strerror or exc}") from exc
        return parts.coordinator.decide(asks, now_s=parts.clock.now_s())

    async def _look_after_time(self) -> None:
        """A deadline passes whether or not anybody asks."""
        while True:
            await asyncio.sleep(_LOOK_S)
            self._minutes.look(now_s=time.monotonic())
            parts = self._parts
            if parts is None:
                await self._try_to_lead()
                continue
            with suppress(StorageError, RefusedError):
                if parts.clock.now_s() >= parts.coordinator.rounds.next_deadline_s():
                    await self._queue.ask(Move())
                if parts.clock.now_s() >= parts.releases.next_deadline_s():
                    await self._written(partial(self._look_at_releases, parts))

    async def _look_after_controls(self) -> None:
        """Whether this process still leads, and what administrators decided."""
        while True:
            await asyncio.sleep(_CONTROL_S)
            if self._parts is not None:
                await self._in(self._writer, self._confirm)

    def _confirm(self) -> None:
        parts = self._parts
        if parts is None:
            return
        if not self._leadership.confirm():
            self._parts = None
            self.log.write("leads_no_more")
            return
        try:
            with self._database.connect() as connection:
                found = controls(read_facts(connection))
            if found.changes != self._controls.changes:
                parts.register.load()
                self.log.write("controls", paused=found.paused, released=found.released)
            self._controls = found
            self._look_at_releases(parts)
        except sa.exc.SQLAlchemyError as exc:
            self.log.write("storage_failed", why=str(exc).splitlines()[0])

    async def _look_after_files(self) -> None:
        """Old versions' files go."""
        while True:
            await asyncio.sleep(_RETENTION_S)
            if self._parts is not None:
                await self._in(self._writer, self._retain)

    def _retain(self) -> None:
        parts = self._parts
        if parts is None:
            return
        try:
            # A version that is being made has files without a row.
            if not parts.versions.behind() and parts.retention.look(now_s=parts.clock.now_s()):
                self._downloads.read()
        except (sa.exc.SQLAlchemyError, OSError) as exc:
            self.log.write("storage_failed", why=str(exc).splitlines()[0])

    def _look_at_releases(self, parts: Leader) -> None:
        now_s = parts.clock.now_s()
        # Unless the database failed just after it took a version, the gate knows of it.
        parts.releases.made(parts.versions.newest.version, now_s=now_s)
        parts.releases.look(chosen=self._controls.released, now_s=now_s)

    async def _make_versions(self) -> None:
        """Rule 3."""
        while True:
            await self._closed.wait()
            self._closed.clear()
            try:
                while (made := await self._next_version()) is not None:
                    self.log.write(
                        "version",
                        version=made.model.version,
                        model_sha256=made.model.model_sha256,
                        updates=made.row["num_updates"],
                        train_loss=made.row["train_loss"],
                    )
                self._preparing = False
            except (OSError, ValueError, StorageError, RefusedError, sa.exc.SQLAlchemyError) as exc:
                self.log.write("storage_failed", why=str(exc).splitlines()[0])
                self.metrics.storage_failures.inc()
                await asyncio.sleep(_CONTROL_S)
                self._closed.set()

    async def _next_version(self) -> Made | None:
        parts = self._leading()
        made = await self._in(self._maker, lambda: parts.versions.make_next(now_s=parts.clock.now_s()))
        if made is not None:
            await self._in(self._writer, lambda: self._publish(parts, made))
            async with self._published:
                self._published.notify_all()
        return made

    def _publish(self, parts: Leader, made: Made) -> None:
        # First what a device gets of it: once it is the newest, others ask for that.
        self._downloads.add(made.model)
        parts.versions.publish(made)
        parts.releases.made(made.model.version, now_s=parts.clock.now_s())
        self.metrics.version.set(made.model.version)

    # What devices ask

    async def enrol(self, request: Enrolment) -> Enrolled:
        """A token for a credential."""
        parts = self._leading()
        enrolled = await self._written(lambda: parts.register.enrol(request, now_s=parts.clock.now_s()))
        if enrolled is None:
            raise RefusedError(401, "wrong_token", "the token is not known, was used before, or the population is full")
        self.metrics.enrolled.inc()
        return enrolled

    async def _written(self, call: Callable[[], T]) -> T:
        """``call`` by the thread that writes."""
        try:
            return await self._in(self._writer, call)
        except (sa.exc.SQLAlchemyError, OSError) as exc:
            self.metrics.storage_failures.inc()
            raise StorageError(str(exc).splitlines()[0]) from exc

    def authenticated(self, credential: str) -> Device:
        """Whose a credential is.

        Raises:
            RefusedError: nobody's, or of a device that takes part no more.
        """
        device = self._leading().register.authenticated(credential)
        if device is None:
            raise RefusedError(401, "wrong_credential", "the credential is not known: enrol with a token")
        if device.state != "enrolled":
            raise RefusedError(403, device.state, f"this device was {device.state}: it takes part no more")
        return device

    async def check_in(self, device: Device, request: CheckIn) -> CheckInAnswer:
        """Work for a device that is free, or why there is none."""
        parts = self._leading()
        self._minutes.checked_in(now_s=time.monotonic())
        refused = self._unable(request)
        if refused is None:
            evaluation = await self._evaluation(parts, device, request)
            if evaluation is not None:
                self.metrics.check_ins.labels("evaluates").inc()
                return CheckInAnswer(evaluation=evaluation, released=self._released(parts, device))
            refused = self._not_now()
        if refused is not None:
            self.metrics.check_ins.labels(refused.reason).inc()
            return CheckInAnswer(turned_away=refused, released=self._released(parts, device))
        note = json.dumps(request.model_dump(exclude_unset=True), separators=(",", ":"))
        answer = await self._queue.ask(CheckInAsk(device=device.number, note=note))
        assert isinstance(answer, CheckedIn)
        self.metrics.check_ins.labels(answer.code.name.lower()).inc()
        if answer.code is not CheckInCode.ASSIGNED:
            return CheckInAnswer(turned_away=turned_away(self.plan, answer), released=self._released(parts, device))
        self._minutes.assigned(answer.assignment, now_s=time.monotonic())
        program = self._program(request)
        work = assignment(
            self.plan,
            answer,
            device=device.number,
            program=program,
            bundle=self._downloads.programs[program],
            download=await self._download(answer.model_version),
        )
        return CheckInAnswer(assignment=work, released=self._released(parts, device))

    async def _download(self, version: int) -> Download:
        """What a device gets of a version, waited for: a report of the same batch may have closed the round before."""
        try:
            async with asyncio.timeout(_MAKING_S), self._published:
                await self._published.wait_for(lambda: version in self._downloads)
        except TimeoutError as exc:
            raise RefusedError(
                503, "preparing", "the version is still being made: check in again", retry_after_s=_STORAGE_RETRY_S
            ) from exc
        return self._downloads.of(version)

    def _unable(self, request: CheckIn) -> TurnedAway | None:
        """Reasons for which there is no work at all; they need no decision."""
        found = incapable(self.plan, request, self._downloads.programs)
        if found is None and self._controls.paused:
            longest_s = self.plan.limits.longest_retry_s
            return TurnedAway(reason="paused", message="the service is paused", retry_after_s=longest_s)
        return found

    def _not_now(self) -> TurnedAway | None:
        """Likewise, for which there is nothing to train."""
        longest_s = self.plan.limits.longest_retry_s
        if self.finished:
            return TurnedAway(reason="finished", message="all versions are made", retry_after_s=longest_s)
        if self._preparing:
            wait_s = min(_PREPARING_RETRY_S, longest_s)
            return TurnedAway(reason="preparing", message="the next version is being made", retry_after_s=wait_s)
        return None

    def _program(self, request: CheckIn) -> str:
        """Of a device that is able to take part."""
        program = chosen_program(self.plan, request, self._downloads.programs)
        assert program is not None
        return program

    def _released(self, parts: Leader, device: Device) -> ReleasedModel:
        version = parts.releases.version_for(device.number)
        return self._downloads.model(version if version in self._downloads else parts.versions.newest.version)

    async def _evaluation(self, parts: Leader, device: Device, request: CheckIn) -> EvaluationWork | None:
        """Two versions to measure, if the gate wants this device to."""
        if not request.evaluates or not parts.releases.wants(device.number, now_s=parts.clock.now_s()):
            return None
        asked = await self._written(lambda: parts.releases.ask(device.number, now_s=parts.clock.now_s()))
        if asked is None:
            return None
        deadline_in_s = parts.releases.deadline_in_s(now_s=parts.clock.now_s())
        program = self._program(request)
        return evaluation_work(
            self.plan, asked, deadline_in_s=deadline_in_s, program=program, downloads=self._downloads
        )

    async def evaluated(self, device: Device, evaluation: int, report: EvaluationReport) -> EvaluationAnswer:
        """How a device finds two versions.

        Raises:
            RefusedError: it does not count, and why.
            StorageError: it is not durable: to be sent again.
        """
        parts = self._leading()
        answer = await self._written(
            lambda: parts.releases.report(device.number, evaluation, report, now_s=parts.clock.now_s())
        )
        self.metrics.evaluations.labels(answer.code).inc()
        return answer

    def file(self, sha256: str) -> Path:
        """Where the bytes of that hash are.

        Raises:
            RefusedError: no file that a device may get has it.
        """
        return self._downloads.path(sha256)

    async def report(
        self,
        device: Device,
        assignment: int,
        facts: ReportFacts,
        *,
        length: int,
        sha256: str,
        body: AsyncIterable[bytes],
    ) -> ReportAnswer:
        """Rule 4.

        Args:
            device: that brings it.
            assignment: that it worked on.
            facts: about its work.
            length: of the body in bytes, as its header says.
            sha256: of the body, likewise.
            body: the update, in pieces.

        Raises:
            RefusedError: it does not count, and why.
            StorageError: it is not durable: to be sent again.
        """
        parts = self._leading()
        self._check_owner(parts, device, assignment)
        check_facts(self.plan, facts)
        expected = self.plan.codec.encoded_bytes(self.plan.report)
        if length != expected:
            raise RefusedError(
                413 if length > expected else 422, "wrong_length", f"a report holds {expected} bytes, got {length}"
            )
        limits = self.plan.limits
        try:
            received = await self._updates.receive(
                body,
                expected_bytes=expected,
                least_bytes_per_s=limits.body_least_bytes_per_s,
                grace_s=limits.body_grace_s,
            )
            if received.sha256 != sha256:
                received.discard()
                raise RefusedError(
                    422, "wrong_hash", f"the body's SHA-256 is {received.sha256}, Content-Digest says {sha256}"
                )
            await self._in(self._checkers, lambda: self._check_and_keep(received, assignment))
        except OSError as exc:
            self.metrics.storage_failures.inc()
            raise StorageError(f"the disk did not take the report: {exc.strerror or exc}") from exc
        ask = ReportAsk(device=device.number, assignment=assignment, facts=facts, sha256=sha256, bytes=expected)
        answer = await self._queue.ask(ask)
        assert isinstance(answer, Reported)
        self.metrics.reports.labels(answer.code.name.lower()).inc()
        self._minutes.reported(assignment, accepted=answer.code is ReportCode.ACCEPTED, now_s=time.monotonic())
        if answer.code is ReportCode.ACCEPTED:
            return ReportAnswer(code="accepted", round=answer.round)
        if answer.counted_sha256 != sha256:
            self._updates.remove(assignment, sha256)
        if answer.code is ReportCode.REPEATED:
            if answer.counted_sha256 != sha256:
                raise RefusedError(409, "other_report", "another report on this assignment counts: this one does not")
            return ReportAnswer(code="repeated", round=answer.round)
        raise RefusedError(409, answer.code.name.lower(), f"the report does not count: {_NOT_COUNTED[answer.code]}")

    def _check_owner(self, parts: Leader, device: Device, assignment: int) -> None:
        work = parts.coordinator.work(assignment)
        if work is None:
            raise RefusedError(404, "unknown", f"there is no assignment {assignment}")
        if work.device != device.number:
            raise RefusedError(403, "not_yours", f"assignment {assignment} is another device's")

    def _check_and_keep(self, received: Received, assignment: int) -> None:
        try:
            received.sync()
            checked_update(
                received.path, codec=self.plan.codec, like=self.plan.report, max_norm=self.plan.limits.max_update_norm
            )
            self._updates.keep(received, assignment)
        except BaseException:
            received.discard()
            raise

    async def status(self, device: Device) -> Status:
        """What is known of a device."""
        parts = self._leading()
        accepted = await self._written(lambda: self._accepted(device))
        rounds = parts.coordinator.rounds
        live = await self._written(lambda: rounds.live_assignment(device.number))
        return Status(
            device_id=device.device_id,
            population=self.plan.population,
            round=rounds.round,
            model_version=parts.versions.newest.version,
            paused=self._controls.paused,
            reports_accepted=accepted,
            open_assignments=[live] if live >= 0 else [],
            released=self._released(parts, device),
        )

    def _accepted(self, device: Device) -> int:
        query = sa.select(sa.func.count()).select_from(REPORTS).where(REPORTS.c.device == device.number)
        with self._database.connect() as connection:
            return int(connection.execute(query).scalar_one())

    async def benchmark(self, device: Device, result: BenchmarkResult) -> None:
        """Keep what a device measured."""
        parts = self._leading()
        row = {"device": device.number, "time_s": parts.clock.now_s(), "result": result.model_dump_json()}
        await self._written(lambda: self._insert(BENCHMARKS, row))

    def _insert(self, table: sa.Table, row: dict[str, Any]) -> None:
        with self._leadership.begin() as connection:
            connection.execute(sa.insert(table), row)

    async def rest(self, device: Device, *, begins: bool) -> None:
        """A device's user wants a rest, or has had it: noted, so that its silence is understood; decides nothing."""
        await self.note(f"device {device.device_id}", "pause" if begins else "resume", "")

    async def leave(self, device: Device, *, forget: bool) -> None:
        """A device takes part no more; to be forgotten takes away what it said of itself too."""
        parts = self._leading()
        await self._written(lambda: parts.register.end(device, "forgotten" if forget else "left"))
        await self.note(f"device {device.device_id}", "forget" if forget else "leave", "")

    async def live_figures(self) -> LiveFigures:
        """What administrators watch."""
        parts = self._leading()
        return await self.live.figures(now_s=parts.clock.now_s(), minutes=self._minutes.minutes(now_s=time.monotonic()))

    async def note(self, actor: str, action: str, detail: str) -> None:
        """Into the audit log."""
        parts = self._leading()
        row = {"time_s": parts.clock.now_s(), "actor": actor, "action": action, "detail": detail}
        await self._written(lambda: self._insert(AUDIT, row))
