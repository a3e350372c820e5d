"""One population's service: what each request means, whoever brings it. What goes on without requests is ``upkeep``'s.

Rules:

1. A process that does not lead refuses everything with STANDBY, to be asked again.
2. Updates are received and checked by threads of their own, which hold up neither decisions nor the loop.
3. While a closed round is not yet a version nobody gets work: the next round trains from it.
4. A report is acknowledged once its file and the decision to count it are on the disk.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from pocketfleet.training.codec import round_seed
from pocketfleet.training.round import CheckInCode, ReportCode
from pocketfleet.training.server.database import AUDIT, BENCHMARKS, REPORTS
from pocketfleet.training.server.device_register import Device
from pocketfleet.training.server.durable_coordinator import (
    CheckedIn,
    CheckInAsk,
    ReportAsk,
    Reported,
    StorageError,
    Work,
)
from pocketfleet.training.server.leader import Leader
from pocketfleet.training.server.live_figures import LiveFigures, LiveReader
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
    StageWait,
    Status,
    TurnedAway,
)
from pocketfleet.training.server.refusal import RefusedError
from pocketfleet.training.server.secure_rounds import SecureRounds
from pocketfleet.training.server.service_log import ServiceLog
from pocketfleet.training.server.service_plan import ServicePlan
from pocketfleet.training.server.update_check import check_facts, check_report_keys, checked_update
from pocketfleet.training.server.update_files import Received
from pocketfleet.training.server.upkeep import Upkeep
from pocketfleet.training.server.work_offered import (
    assignment,
    chosen_program,
    evaluation_work,
    incapable,
    turned_away,
)

__all__ = ["Service"]

T = TypeVar("T")
_PREPARING_RETRY_S, _STAGES_RETRY_S = 0.25, 1.0
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
        self.plan = plan
        self.log = log
        self.upkeep = Upkeep(plan, folder, database_url=database_url, log=log)
        self.metrics = self.upkeep.metrics
        self.live = LiveReader(self.upkeep.database, plan)
        self._checkers = ThreadPoolExecutor(_CHECKERS, "checks")

    async def start(self) -> None:
        """Begin to lead, or to wait for it; returns once the first try is over."""
        await self.upkeep.start()

    async def stop(self) -> None:
        """Finish what is being decided, then let go."""
        # First what may still ask for a decision.
        await asyncio.to_thread(self._checkers.shutdown)
        await self.upkeep.stop()

    @property
    def leads(self) -> bool:
        """Whether this process decides."""
        return self.upkeep.leader is not None

    @property
    def admin_sha256(self) -> str:
        """Of the administrator's credential; empty: there is none."""
        return self.upkeep.controls.admin_sha256

    async def enrol(self, request: Enrolment) -> Enrolled:
        """A token for a credential."""
        parts = self.upkeep.leading()
        enrolled = await self.upkeep.written(lambda: parts.register.enrol(request, now_s=parts.clock.now_s()))
        if enrolled is None:
            raise RefusedError(401, "wrong_token", "the token is not known, was used before, or the population is full")
        self.metrics.enrolled.inc()
        return enrolled

    def authenticated(self, credential: str) -> Device:
        """Whose a credential is.

        Raises:
            RefusedError: nobody's, or of a device that takes part no more.
        """
        device = self.upkeep.leading().register.authenticated(credential)
        if device is None:
            raise RefusedError(401, "wrong_credential", "the credential is not known: enrol with a token")
        if device.state != "enrolled":
            raise RefusedError(403, device.state, f"this device was {device.state}: it takes part no more")
        return device

    async def check_in(self, device: Device, request: CheckIn) -> CheckInAnswer:
        """Work for a device that is free, or why there is none."""
        parts = self.upkeep.leading()
        self.upkeep.minutes.checked_in(now_s=time.monotonic())
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
        answer = await self.upkeep.queue.ask(CheckInAsk(device=device.number, note=note))
        assert isinstance(answer, CheckedIn)
        self.metrics.check_ins.labels(answer.code.name.lower()).inc()
        if answer.code is not CheckInCode.ASSIGNED:
            return CheckInAnswer(turned_away=turned_away(self.plan, answer), released=self._released(parts, device))
        self.upkeep.minutes.assigned(answer.assignment, now_s=time.monotonic())
        program = self._program(request)
        work = assignment(
            self.plan,
            answer,
            device=device.number,
            program=program,
            bundle=self.upkeep.downloads.programs[program],
            download=await self.upkeep.download(answer.model_version),
        )
        return CheckInAnswer(assignment=work, released=self._released(parts, device))

    def _unable(self, request: CheckIn) -> TurnedAway | None:
        """Reasons for which there is no work at all; they need no decision."""
        found = incapable(self.plan, request, self.upkeep.downloads.programs)
        if found is None and self.upkeep.controls.paused:
            longest_s = self.plan.limits.longest_retry_s
            return TurnedAway(reason="paused", message="the service is paused", retry_after_s=longest_s)
        return found

    def _not_now(self) -> TurnedAway | None:
        """Likewise, for which there is nothing to train."""
        longest_s = self.plan.limits.longest_retry_s
        if self.upkeep.finished:
            return TurnedAway(reason="finished", message="all versions are made", retry_after_s=longest_s)
        if self.upkeep.preparing:
            # Stages take as long as devices do: no reason to come every moment.
            wait_s = min(_PREPARING_RETRY_S if self.upkeep.secure is None else _STAGES_RETRY_S, longest_s)
            return TurnedAway(reason="preparing", message="the next version is being made", retry_after_s=wait_s)
        return None

    def _program(self, request: CheckIn) -> str:
        """Of a device that is able to take part."""
        program = chosen_program(self.plan, request, self.upkeep.downloads.programs)
        assert program is not None
        return program

    def _released(self, parts: Leader, device: Device) -> ReleasedModel:
        version = parts.releases.version_for(device.number)
        return self.upkeep.downloads.model(
            version if version in self.upkeep.downloads else parts.versions.newest.version
        )

    async def _evaluation(self, parts: Leader, device: Device, request: CheckIn) -> EvaluationWork | None:
        """Two versions to measure, if the gate wants this device to."""
        if not request.evaluates or not parts.releases.wants(device.number, now_s=parts.clock.now_s()):
            return None
        asked = await self.upkeep.written(lambda: parts.releases.ask(device.number, now_s=parts.clock.now_s()))
        if asked is None:
            return None
        deadline_in_s = parts.releases.deadline_in_s(now_s=parts.clock.now_s())
        program = self._program(request)
        return evaluation_work(
            self.plan, asked, deadline_in_s=deadline_in_s, program=program, downloads=self.upkeep.downloads
        )

    async def evaluated(self, device: Device, evaluation: int, report: EvaluationReport) -> EvaluationAnswer:
        """How a device finds two versions.

        Raises:
            RefusedError: it does not count, and why.
            StorageError: it is not durable: to be sent again.
        """
        parts = self.upkeep.leading()
        answer = await self.upkeep.written(
            lambda: parts.releases.report(device.number, evaluation, report, now_s=parts.clock.now_s())
        )
        self.metrics.evaluations.labels(answer.code).inc()
        return answer

    def file(self, sha256: str) -> Path:
        """Where the bytes of that hash are.

        Raises:
            RefusedError: no file that a device may get has it.
        """
        return self.upkeep.downloads.path(sha256)

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
        parts = self.upkeep.leading()
        work = self._own_work(parts, device, assignment)
        check_facts(self.plan, facts)
        expected = self.plan.report_bytes
        if length != expected:
            raise RefusedError(
                413 if length > expected else 422, "wrong_length", f"a report holds {expected} bytes, got {length}"
            )
        limits = self.plan.limits
        try:
            received = await self.upkeep.updates.receive(
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
            await asyncio.get_running_loop().run_in_executor(
                self._checkers, self._check_and_keep, received, assignment, work.model_version
            )
        except OSError as exc:
            self.metrics.storage_failures.inc()
            raise StorageError(f"the disk did not take the report: {exc.strerror or exc}") from exc
        ask = ReportAsk(device=device.number, assignment=assignment, facts=facts, sha256=sha256, bytes=expected)
        answer = await self.upkeep.queue.ask(ask)
        assert isinstance(answer, Reported)
        self.metrics.reports.labels(answer.code.name.lower()).inc()
        self.upkeep.minutes.reported(assignment, accepted=answer.code is ReportCode.ACCEPTED, now_s=time.monotonic())
        if answer.code is ReportCode.ACCEPTED:
            return ReportAnswer(code="accepted", round=answer.round)
        if answer.counted_sha256 != sha256:
            self.upkeep.updates.remove(assignment, sha256)
        if answer.code is ReportCode.REPEATED:
            if answer.counted_sha256 != sha256:
                raise RefusedError(409, "other_report", "another report on this assignment counts: this one does not")
            return ReportAnswer(code="repeated", round=answer.round)
        raise RefusedError(409, answer.code.name.lower(), f"the report does not count: {_NOT_COUNTED[answer.code]}")

    def _own_work(self, parts: Leader, device: Device, assignment: int) -> Work:
        work = parts.coordinator.work(assignment)
        if work is None:
            raise RefusedError(404, "unknown", f"there is no assignment {assignment}")
        if work.device != device.number:
            raise RefusedError(403, "not_yours", f"assignment {assignment} is another device's")
        return work

    def _check_and_keep(self, received: Received, assignment: int, model_version: int) -> None:
        try:
            received.sync()
            if self.plan.secure is not None:
                check_report_keys(received.path)
            else:
                checked_update(
                    received.path,
                    codec=self.plan.codec,
                    like=self.plan.report,
                    shared_seed=round_seed(self.plan.seed, model_version),
                    max_norm=self.plan.limits.max_update_norm,
                )
            self.upkeep.updates.keep(received, assignment)
        except BaseException:
            received.discard()
            raise

    async def stage_bytes(self, device: Device, assignment: int, stage: str) -> int:
        """How long a device's message of a stage is.

        Raises:
            RefusedError: it is not asked for one.
        """
        secure, round_index = self._staged(device, assignment)
        return await asyncio.get_running_loop().run_in_executor(
            self._checkers, secure.message_bytes, round_index, assignment, stage
        )

    async def take_stage(self, device: Device, assignment: int, stage: str, message: bytes) -> None:
        """A device's message of a stage.

        Raises:
            RefusedError: it does not count, and why.
        """
        secure, round_index = self._staged(device, assignment)
        await asyncio.get_running_loop().run_in_executor(
            self._checkers, secure.take, round_index, assignment, stage, message
        )

    async def stage_input(self, device: Device, assignment: int, stage: str) -> bytes | StageWait:
        """What a device needs for its message of a stage, or when to ask again.

        Raises:
            RefusedError: it is not asked for one.
        """
        secure, round_index = self._staged(device, assignment)
        return await asyncio.get_running_loop().run_in_executor(
            self._checkers, secure.needed, round_index, assignment, stage
        )

    def _staged(self, device: Device, assignment: int) -> tuple[SecureRounds, int]:
        """What makes sums, and the round of an assignment of this device's."""
        work = self._own_work(self.upkeep.leading(), device, assignment)
        if self.upkeep.secure is None:
            raise RefusedError(409, "no_stages", "rounds of this service have no stages")
        return self.upkeep.secure, work.round

    async def status(self, device: Device) -> Status:
        """What is known of a device."""
        parts = self.upkeep.leading()
        accepted = await self.upkeep.written(lambda: self._accepted(device))
        rounds = parts.coordinator.rounds
        live = await self.upkeep.written(lambda: rounds.live_assignment(device.number))
        return Status(
            device_id=device.device_id,
            population=self.plan.population,
            round=rounds.round,
            model_version=parts.versions.newest.version,
            paused=self.upkeep.controls.paused,
            reports_accepted=accepted,
            open_assignments=[live] if live >= 0 else [],
            released=self._released(parts, device),
        )

    def _accepted(self, device: Device) -> int:
        query = sa.select(sa.func.count()).select_from(REPORTS).where(REPORTS.c.device == device.number)
        with self.upkeep.database.connect() as connection:
            return int(connection.execute(query).scalar_one())

    async def benchmark(self, device: Device, result: BenchmarkResult) -> None:
        """Keep what a device measured."""
        parts = self.upkeep.leading()
        row = {"device": device.number, "time_s": parts.clock.now_s(), "result": result.model_dump_json()}
        await self.upkeep.written(lambda: self._insert(BENCHMARKS, row))

    def _insert(self, table: sa.Table, row: dict[str, Any]) -> None:
        with self.upkeep.leadership.begin() as connection:
            connection.execute(sa.insert(table), row)

    async def rest(self, device: Device, *, begins: bool) -> None:
        """A device's user wants a rest, or has had it: noted, so that its silence is understood; decides nothing."""
        await self.note(f"device {device.device_id}", "pause" if begins else "resume", "")

    async def leave(self, device: Device, *, forget: bool) -> None:
        """A device takes part no more; to be forgotten takes away what it said of itself too."""
        parts = self.upkeep.leading()
        await self.upkeep.written(lambda: parts.register.end(device, "forgotten" if forget else "left"))
        await self.note(f"device {device.device_id}", "forget" if forget else "leave", "")

    async def live_figures(self) -> LiveFigures:
        """What administrators watch."""
        parts = self.upkeep.leading()
        return await self.live.figures(
            now_s=parts.clock.now_s(), minutes=self.upkeep.minutes.minutes(now_s=time.monotonic())
        )

    async def note(self, actor: str, action: str, detail: str) -> None:
        """Into the audit log."""
        parts = self.upkeep.leading()
        row = {"time_s": parts.clock.now_s(), "actor": actor, "action": action, "detail": detail}
        await self.upkeep.written(lambda: self._insert(AUDIT, row))
