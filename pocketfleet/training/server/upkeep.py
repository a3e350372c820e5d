"""What a service does by itself: lead, decide what was asked, close rounds in time, make versions, look after files.

Rules:

1. One process leads (``leadership``); what it has in hand is its ``Leader``. The others try again and again.
2. One thread decides and writes to the database, another makes versions; neither holds up the loop.
3. While a closed round is not yet a version ``preparing`` holds.
4. What the disk or the database does not take is told and tried again.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from pocketfleet.training.release_gate import Change
from pocketfleet.training.server.blob_folder import BlobFolder
from pocketfleet.training.server.database import open_database
from pocketfleet.training.server.decision_queue import DecisionQueue
from pocketfleet.training.server.downloads import Download, Downloads
from pocketfleet.training.server.durable_coordinator import Ask, Decided, Move, ReportAsk, StorageError
from pocketfleet.training.server.facts import Controls, controls, read_facts
from pocketfleet.training.server.leader import Leader, read_back
from pocketfleet.training.server.leadership import Leadership, leadership
from pocketfleet.training.server.minute_counts import MinuteCounts
from pocketfleet.training.server.model_versions import Made
from pocketfleet.training.server.refusal import RefusedError
from pocketfleet.training.server.secure_rounds import SecureRounds
from pocketfleet.training.server.service_log import ServiceLog
from pocketfleet.training.server.service_metrics import ServiceMetrics
from pocketfleet.training.server.service_plan import ServicePlan
from pocketfleet.training.server.update_files import UpdateFiles

__all__ = ["Upkeep"]

T = TypeVar("T")
# How often the service looks for deadlines, administrators' changes, and whether it still leads; seconds.
_LOOK_S = 0.25
_CONTROL_S = 1.0
# How often it looks for files that nobody needs; our choice: what is being sent when they are hidden takes less.
_RETENTION_S = 30.0
# After a failure of the disk or the database; our choice.
_STORAGE_RETRY_S = 5.0
_STANDBY_RETRY_S = 1.0
# So long a device that was given work waits for its model, which takes milliseconds as a rule.
_MAKING_S = 20.0


class Upkeep:
    """See the module's rules.

    Args:
        plan: what is served.
        folder: for files, and the SQLite database.
        database_url: of another database; empty: SQLite.
        log: where it tells what happens.

    Attributes:
        leader: what the leading process has in hand; ``None``: another one leads.
        controls: what administrators decided.
        preparing: see rule 3.
        queue: takes what is to be decided.
        secure: makes sums that hide their parts; ``None``: the plan has none.
    """

    def __init__(self, plan: ServicePlan, folder: Path, *, database_url: str, log: ServiceLog) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.plan = plan
        self.metrics = ServiceMetrics()
        self.log = log
        self.database = open_database(folder, database_url)
        self.leadership: Leadership = leadership(self.database, folder, plan.population)
        self.minutes = MinuteCounts(deadline_s=plan.rounds.deadline_s, lost=self.metrics.dropouts.inc)
        self.updates = UpdateFiles(folder / "updates")
        self.queue = DecisionQueue(self._decide)
        self.leader: Leader | None = None
        self.controls = Controls()
        self.preparing = True
        kept = folder / "transcripts" if plan.limits.keep_updates else None
        self.secure = SecureRounds(plan.secure, folder=kept) if plan.secure is not None else None
        self._blobs = BlobFolder(folder / "files")
        self.downloads = Downloads(plan, database=self.database, blobs=self._blobs)
        self._writer = ThreadPoolExecutor(1, "decisions")
        self._maker = ThreadPoolExecutor(1, "versions")
        self._published = asyncio.Condition()
        self._closed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to lead, or to wait for it; returns once the first try is over."""
        await self._try_to_lead()
        after = (self._look_after_time, self._look_after_controls, self._look_after_files)
        for work in (self.queue.run, *after, self._make_versions):
            self._tasks.append(asyncio.create_task(work()))

    async def stop(self) -> None:
        """Finish what is being decided, then let go."""
        while self.queue.length and self.leader is not None:
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        if self.secure is not None:
            self.secure.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for threads in (self._maker, self._writer):
            await asyncio.to_thread(threads.shutdown)
        self.leadership.release()
        self.database.dispose()

    @property
    def finished(self) -> bool:
        """Whether all versions are made."""
        return self.leader is not None and self.leader.versions.newest.version >= self.plan.count

    def leading(self) -> Leader:
        """What the leader has in hand.

        Raises:
            RefusedError: this process does not lead.
        """
        if self.leader is None:
            raise RefusedError(
                503, "standby", "this server does not lead: ask again, or another one", retry_after_s=_STANDBY_RETRY_S
            )
        return self.leader

    async def _try_to_lead(self) -> None:
        if self.leader is not None:
            return
        try:
            parts = await _in(self._writer, self._begin)
        except (sa.exc.SQLAlchemyError, StorageError, OSError) as exc:
            self.log.write("cannot_lead", why=str(exc).splitlines()[0])
            return
        if parts is not None:
            self.leader = parts
            self.preparing = True
            self._closed.set()
            self.log.write("leads", population=self.plan.population, version=parts.versions.newest.version)

    def _begin(self) -> Leader | None:
        """Take the lead, if it is free, and read everything back."""
        if not self.leadership.acquire():
            return None
        try:
            leader = read_back(
                self.plan,
                database=self.database,
                leadership=self.leadership,
                blobs=self._blobs,
                updates=self.updates,
                secure=self.secure,
                downloads=self.downloads,
                told=self._tell_release,
            )
        except BaseException:
            self.leadership.release()
            raise
        self.controls = leader.controls
        return leader

    def _tell_release(self, change: Change) -> None:
        self.metrics.releases.labels(change.state.value).inc()
        self.log.write("release", version=change.version, state=change.state.value, why=change.reason)

    async def download(self, version: int) -> Download:
        """What a device gets of a version, waited for: a report of the same batch may have closed the round before."""
        try:
            async with asyncio.timeout(_MAKING_S), self._published:
                await self._published.wait_for(lambda: version in self.downloads)
        except TimeoutError as exc:
            raise RefusedError(
                503, "preparing", "the version is still being made: check in again", retry_after_s=_STORAGE_RETRY_S
            ) from exc
        return self.downloads.of(version)

    async def written(self, call: Callable[[], T]) -> T:
        """``call`` by the thread that writes."""
        try:
            return await _in(self._writer, call)
        except (sa.exc.SQLAlchemyError, OSError) as exc:
            self.metrics.storage_failures.inc()
            raise StorageError(str(exc).splitlines()[0]) from exc

    async def _decide(self, asks: Sequence[Ask]) -> Decided:
        parts = self.leading()
        try:
            decided = await _in(self._writer, lambda: self._decided(parts, asks))
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
            self.preparing = True
            self._closed.set()
        return decided

    def _decided(self, parts: Leader, asks: Sequence[Ask]) -> Decided:
        if any(isinstance(ask, ReportAsk) for ask in asks):
            try:
                self.updates.sync()
            except OSError as exc:
                raise StorageError(f"the disk did not take {len(asks)} decisions: {exc.strerror or exc}") from exc
        return parts.coordinator.decide(asks, now_s=parts.clock.now_s())

    async def _look_after_time(self) -> None:
        """A deadline passes whether or not anybody asks."""
        while True:
            await asyncio.sleep(_LOOK_S)
            self.minutes.look(now_s=time.monotonic())
            parts = self.leader
            if parts is None:
                await self._try_to_lead()
                continue
            with suppress(StorageError, RefusedError):
                if parts.clock.now_s() >= parts.coordinator.rounds.next_deadline_s():
                    await self.queue.ask(Move())
                if parts.clock.now_s() >= parts.releases.next_deadline_s():
                    await self.written(partial(self._look_at_releases, parts))

    async def _look_after_controls(self) -> None:
        """Whether this process still leads, and what administrators decided."""
        while True:
            await asyncio.sleep(_CONTROL_S)
            if self.leader is not None:
                await _in(self._writer, self._confirm)

    def _confirm(self) -> None:
        parts = self.leader
        if parts is None:
            return
        if not self.leadership.confirm():
            self.leader = None
            self.log.write("leads_no_more")
            return
        try:
            with self.database.connect() as connection:
                found = controls(read_facts(connection))
            if found.changes != self.controls.changes:
                parts.register.load()
                self.log.write("controls", paused=found.paused, released=found.released)
            self.controls = found
            self._look_at_releases(parts)
        except sa.exc.SQLAlchemyError as exc:
            self.log.write("storage_failed", why=str(exc).splitlines()[0])

    async def _look_after_files(self) -> None:
        """Old versions' files go."""
        while True:
            await asyncio.sleep(_RETENTION_S)
            if self.leader is not None:
                await _in(self._writer, self._retain)

    def _retain(self) -> None:
        parts = self.leader
        if parts is None:
            return
        try:
            # A version that is being made has files without a row.
            if not parts.versions.behind() and parts.retention.look(now_s=parts.clock.now_s()):
                self.downloads.read()
        except (sa.exc.SQLAlchemyError, OSError) as exc:
            self.log.write("storage_failed", why=str(exc).splitlines()[0])

    def _look_at_releases(self, parts: Leader) -> None:
        now_s = parts.clock.now_s()
        # Unless the database failed just after it took a version, the gate knows of it.
        parts.releases.made(parts.versions.newest.version, now_s=now_s)
        parts.releases.look(chosen=self.controls.released, now_s=now_s)

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
                        **({"no_sum": made.no_sum} if made.no_sum else {}),
                    )
                self.preparing = False
            except (OSError, ValueError, StorageError, RefusedError, sa.exc.SQLAlchemyError) as exc:
                self.log.write("storage_failed", why=str(exc).splitlines()[0])
                self.metrics.storage_failures.inc()
                await asyncio.sleep(_CONTROL_S)
                self._closed.set()

    async def _next_version(self) -> Made | None:
        parts = self.leading()
        made = await _in(self._maker, lambda: parts.versions.make_next(now_s=parts.clock.now_s()))
        if made is not None:
            await _in(self._writer, lambda: self._publish(parts, made))
            async with self._published:
                self._published.notify_all()
        return made

    def _publish(self, parts: Leader, made: Made) -> None:
        # Not before it is written: noise drawn anew after a failure, beside the first, would be weaker than either.
        parts.versions.write(made)
        # Once it is the newest, others ask for what a device gets of it.
        self.downloads.add(made.model)
        parts.versions.adopt(made)
        parts.releases.made(made.model.version, now_s=parts.clock.now_s())
        self.metrics.version.set(made.model.version)


async def _in(threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, call)
