"""One attempt of an emulated device, acted out: downloads, training, and the finished report on the disk.

Rules:

1. What becomes of it is settled as the simulator does it (``emulated_phone``), when it starts; the first attempt with a
   bundle once that is there, as of its start: before, nobody knows what a step costs.
2. Downloads go over a link of the phone's rates, each step takes the phone's time, memory is the phone's.
3. Work that would be thrown away is not computed, but takes its time.
4. A host that is slower than the phone makes an attempt longer than settled. That is told, and the deadline holds.
"""

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from pocketfleet.device_sim.attempt import Drop, Stage
from pocketfleet.device_sim.client import ClientResult, mean_evaluation
from pocketfleet.device_sim.device_data import HeldExamples
from pocketfleet.device_sim.device_folder import FinishedReport, WorkUnderWay
from pocketfleet.device_sim.device_parts import NOT_FINITE, DeviceParts, Dropped
from pocketfleet.device_sim.device_work import DeviceWork, assembled_bundle, needed_files
from pocketfleet.device_sim.eligibility import Reason, Rule
from pocketfleet.device_sim.emulated_phone import Attempt, Task
from pocketfleet.device_sim.fault_plan import Moment
from pocketfleet.device_sim.look import Look
from pocketfleet.device_sim.memory_limit import is_out_of_memory, memory_limit
from pocketfleet.device_sim.paced_session import OutOfTime, PacedSession
from pocketfleet.device_sim.process_memory import data_bytes, peak_bytes
from pocketfleet.device_sim.program_cost import step_seconds_of, training_memory_bytes
from pocketfleet.device_sim.secure_participation import SecureParticipation
from pocketfleet.device_sim.service_client import Refused, Unreachable
from pocketfleet.errors import BundleError
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.manifest import MANIFEST_FILE, WEIGHTS_FILE
from pocketfleet.export.session import open_session
from pocketfleet.training.server.protocol import Assignment, EvaluationReport, EvaluationWork, FileEntry, ReportFacts
from pocketfleet.training.server.wall_clock import wall_s

__all__ = ["AttemptRunner"]

Line = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """A bundle that runs, and the examples as it takes them."""

    bundle: Bundle
    session: PacedSession
    data: HeldExamples


class AttemptRunner:
    """Carries out attempts, one after another; keeps what the next one needs too.

    Args:
        parts: the device's.
        crash: called at each moment at which a device may die.

    Attributes:
        participation: in the secure sum of the attempt that was carried out last; ``None``: its report is the update.
    """

    def __init__(self, parts: DeviceParts, crash: Callable[[Moment], None]) -> None:
        self._parts = parts
        self._crash = crash
        self._opened: dict[str, _Opened] = {}  # of the last bundle, by its manifest's SHA-256
        self._tasks: dict[str, Task] = {}  # likewise
        self._loaded_bytes = data_bytes()
        self._transfers = 0
        self.participation: SecureParticipation | None = None

    def breaks_after(self) -> float:
        """Bytes after which the connection of the next transfer breaks."""
        self._transfers += 1
        return self._parts.faults.breaks_after(self._transfers)

    def deadline_s(self, deadline_wall_s: float) -> float:
        """A time of the wall, by the phone's clock."""
        clock = self._parts.clock
        return clock.now_s() + (deadline_wall_s - wall_s()) * clock.speed

    def run(self, work: WorkUnderWay, look: Look, line: Line) -> Attempt:
        """Download, train, and write the report down.

        Args:
            work: what is asked.
            look: at which the phone was found able.
            line: takes what there is to tell.

        Returns:
            What becomes of the upload.

        Raises:
            Dropped: there is no report.
            InputError: this device cannot do what the service asks.
        """
        assignment = work.assignment
        wanted = needed_files(assignment.bundle, self._parts.runtime)
        manifest = wanted[MANIFEST_FILE].sha256
        had_bundle = self._parts.folder.bundle_folder(manifest).is_dir()
        attempt = None
        if had_bundle and manifest in self._tasks:
            attempt = self._settled(work, look, self._tasks[manifest], had_bundle=True)
        began_s = float(look.at_s[0])
        files = self._downloaded(work, look, attempt, {} if had_bundle else wanted)
        line["download_s"] = self._parts.clock.now_s() - began_s
        self._crash("downloaded")
        ready = self._ready(work, files, {} if had_bundle else wanted, manifest)
        attempt = attempt or self._settled(work, look, self._tasks[manifest], had_bundle=had_bundle)
        line["expected"] = {name: getattr(attempt, name) for name in ("download_s", "train_s", "upload_s", "steps")}
        if attempt.stage is Stage.DOWNLOAD:
            self._parts.clock.wait_until(began_s + attempt.download_s)
            raise Dropped(attempt.drop.word)
        result = self._trained(ready, work, attempt, line, session=self._opened[manifest])
        self._finish(ready, work, attempt, result, line)
        return attempt

    def evaluate(self, work: EvaluationWork) -> EvaluationReport:
        """Measure the version that is tried and the one in use, on what this device holds out.

        It is not paced, and its transfers are requests: what evaluations cost is of the simulator's (docs/release.md).

        Raises:
            Dropped: there is no evaluation.
            InputError: this device cannot do what the service asks.
        """
        folder, phone = self._parts.folder, self._parts.phone
        wanted = needed_files(work.bundle, self._parts.runtime)
        manifest = wanted[MANIFEST_FILE].sha256
        bundle_files = {} if folder.bundle_folder(manifest).is_dir() else wanted
        entries = [*bundle_files.values(), work.tried.weights, work.released.weights]
        self._parts.link.use(phone.request(self._parts.clock.now_s()))
        until_s = self._parts.clock.now_s() + work.deadline_in_s * self._parts.clock.speed
        try:
            files = {entry.sha256: self._parts.service.fetch(entry, folder.files, until_s=until_s) for entry in entries}
        except Unreachable as exc:
            raise Dropped(Drop.DEADLINE.word) from exc
        with self._phones_memory():
            opened = self._open({name: files[entry.sha256] for name, entry in bundle_files.items()}, manifest)
            held_out = opened.data.held_out(phone.unit.device)
            tried, released = (
                mean_evaluation(
                    opened.session,
                    opened.bundle.weights(version=files[model.weights.sha256]),
                    held_out,
                    batch_size=min(work.batch_size, opened.bundle.max_batch),
                )[work.metric]
                for model in (work.tried, work.released)
            )
        return EvaluationReport(
            num_held_out=len(held_out),
            tried=tried if math.isfinite(tried) else None,
            released=released if math.isfinite(released) else None,
        )

    def _settled(self, work: WorkUnderWay, look: Look, task: Task, *, had_bundle: bool) -> Attempt:
        """What will become of an attempt that starts at a look."""
        phone, assignment = self._parts.phone, work.assignment
        rule = Rule(**assignment.rule.model_dump())
        if phone.rule != rule or phone.task is not task:
            phone.ask(rule, task)
            look = phone.look(float(look.at_s[0]))
        if look.reason[0] != Reason.ELIGIBLE:
            raise Dropped(Reason(int(look.reason[0])).word)
        phone.has_bundle(had_bundle)
        return phone.start(
            look,
            round_index=assignment.round,
            model_version=assignment.model_version,
            deadline_s=max(self.deadline_s(work.deadline_wall_s), float(look.at_s[0])),
        )

    # Downloads

    def _downloaded(
        self, work: WorkUnderWay, look: Look, attempt: Attempt | None, bundle_files: dict[str, FileEntry]
    ) -> dict[str, Path]:
        """What is missing, and the model; by SHA-256."""
        assignment, folder, service = work.assignment, self._parts.folder, self._parts.service
        # The version may be the first, whose weights the bundle holds too.
        entries = {entry.sha256: entry for entry in [*bundle_files.values(), *_model(assignment)]}.values()
        began_s, until_s = float(look.at_s[0]), self.deadline_s(work.deadline_wall_s)
        cut = attempt is not None and attempt.stage is Stage.DOWNLOAD
        if attempt is not None and cut:
            until_s = min(until_s, began_s + attempt.download_s)
        # An attempt that is settled has its number already.
        plan = self._parts.phone.download(began_s, sum(entry.bytes for entry in entries), settled=attempt is not None)
        self._parts.link.use(plan, from_s=began_s, until_s=until_s, breaks_after=self.breaks_after())
        try:
            return {entry.sha256: service.fetch(entry, folder.files, until_s=until_s) for entry in entries}
        except Unreachable as exc:
            raise Dropped(attempt.drop.word if attempt is not None and cut else Drop.DEADLINE.word) from exc
        except Refused as exc:
            # A version that is there no more; what else is refused concerns the whole device.
            if exc.status != httpx.codes.NOT_FOUND:
                raise
            raise Dropped(exc.code) from exc

    def _ready(
        self, work: WorkUnderWay, files: dict[str, Path], bundle_files: dict[str, FileEntry], manifest: str
    ) -> DeviceWork:
        """Everything downloaded is opened."""
        assignment, folder = work.assignment, self._parts.folder
        with self._phones_memory():
            opened = self._open({name: files[entry.sha256] for name, entry in bundle_files.items()}, manifest)
            ready = DeviceWork.of(
                assignment,
                opened.bundle,
                weights=files[assignment.weights.sha256],
                broadcast=files[assignment.broadcast.sha256] if assignment.broadcast else None,
                device_state=folder.state(),
                own_code=self._parts.own_code,
            )
        folder.keep_only([entry.sha256 for entry in _model(assignment)], manifest)
        if manifest not in self._tasks:
            self._tasks = {manifest: self._task(ready)}
        return ready

    def _open(self, files: dict[str, Path], manifest: str) -> _Opened:
        if manifest not in self._opened:
            runtime, folder = self._parts.runtime, self._parts.folder.bundle_folder(manifest)
            try:
                bundle = assembled_bundle(files, folder, runtime=runtime)
            except BundleError as exc:
                # Whatever happened to it on this disk, the next attempt downloads it anew.
                shutil.rmtree(folder, ignore_errors=True)
                self._parts.tell(str(exc))
                raise Dropped("damaged_bundle") from exc
            session = PacedSession(open_session(bundle, runtime), self._parts.clock)
            data = self._parts.data(bundle.signature)
            self._opened = {manifest: _Opened(bundle=bundle, session=session, data=data)}
        return self._opened[manifest]

    def _task(self, ready: DeviceWork) -> Task:
        assignment, unit = ready.assignment, self._parts.phone.unit
        footprint = ready.bundle.footprint(self._parts.runtime)
        wanted = needed_files(assignment.bundle, self._parts.runtime)
        return Task(
            epochs=assignment.epochs,
            steps=assignment.steps,
            batch_size=assignment.batch_size,
            step_s=step_seconds_of(footprint, unit.fleet, profile=unit.profile, models=ready.models),
            training_memory_bytes=training_memory_bytes(footprint, ready.weights.trainable, models=ready.models),
            # As the simulator counts them: the initial weights are a version's, and most devices come with the first.
            bundle_bytes=sum(entry.bytes for name, entry in wanted.items() if name != WEIGHTS_FILE),
            weights_bytes=sum(entry.bytes for entry in _model(assignment)),
            update_bytes=assignment.update_bytes,
            partial_work=assignment.partial_work == "report",
        )

    # Training

    @contextmanager
    def _phones_memory(self) -> Iterator[None]:
        """Inside, memory is the phone's: where it is refused the attempt is over."""
        free_bytes = self._parts.phone.free_memory_bytes(self._parts.clock.now_s())
        try:
            with memory_limit(free_bytes, above_bytes=self._loaded_bytes):
                yield
        except Exception as exc:
            if is_out_of_memory(exc):
                raise Dropped(Drop.OUT_OF_MEMORY.word) from exc
            raise

    def _trained(
        self, ready: DeviceWork, work: WorkUnderWay, attempt: Attempt, line: Line, *, session: _Opened
    ) -> ClientResult:
        clock, began_s = self._parts.clock, self._parts.clock.now_s()
        # What the host needed to open what was downloaded: no part of the phone's time.
        line["prepare_s"] = began_s - attempt.start_s - line["download_s"]
        ends_s = began_s + attempt.train_s
        if attempt.stage is Stage.TRAIN:
            clock.wait_until(min(ends_s, self.deadline_s(work.deadline_wall_s)))
            raise Dropped(attempt.drop.word)
        paced, calls = session.session, attempt.steps * ready.models
        dies_after = self._parts.faults.crash_step(self._transfers, steps=calls)

        def after(call: int) -> None:
            if call > dies_after:
                self._parts.faults.die()

        paced.start(call_s=attempt.step_s / ready.models, until_s=self.deadline_s(work.deadline_wall_s), after=after)
        try:
            with self._phones_memory():
                result = ready.train(
                    paced,
                    session.data,
                    device=self._parts.phone.unit.device,
                    steps=attempt.steps,
                    present=attempt.present,
                )
        except OutOfTime as exc:
            raise Dropped(Drop.DEADLINE.word) from exc
        finally:
            line["late_steps"], line["latest_s"] = paced.late, paced.late_s
        clock.wait_until(ends_s)
        line["train_s"] = clock.now_s() - began_s
        if not result.finite:
            raise Dropped(NOT_FINITE)
        return result

    def _finish(
        self, ready: DeviceWork, work: WorkUnderWay, attempt: Attempt, result: ClientResult, line: Line
    ) -> None:
        self.participation = taking_part = ready.participation(result, num_examples=attempt.num_examples)
        sent = ready.report(result) if taking_part is None else (taking_part.keys, result.device_state)
        if sent is None:
            raise Dropped(NOT_FINITE)
        facts = ready.facts(
            result,
            steps=attempt.steps,
            num_examples=attempt.num_examples,
            examples_held=attempt.num_present,
        )
        line |= {
            "steps": attempt.steps,
            "train_loss": facts.train_loss,
            "metric": ready.headline,
            "metric_global": facts.metric_global,
            "metric_personalised": facts.metric_personalised,
            "num_held_out": result.num_held_out,
            "peak_rss_bytes": peak_bytes(),
        }
        report = FinishedReport(
            assignment_id=work.assignment.assignment_id,
            deadline_wall_s=work.deadline_wall_s,
            facts=facts if work.assignment.secure is None else ReportFacts.of_nothing(),
            line=line,
        )
        update, state = sent
        self._parts.folder.finish(report, update, state=state, model=result.personalised)
        self._crash("trained")


def _model(assignment: Assignment) -> list[FileEntry]:
    """What comes with each version."""
    return [assignment.weights, *([assignment.broadcast] if assignment.broadcast else [])]
