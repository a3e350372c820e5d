"""An emulated device: the loop of one phone that takes part in a population, from a look at itself to a report.

Rules:

1. It judges by itself whether it may train; only one that may checks in. One that is turned away comes again when it
   was told to, or when there are news.
2. An attempt that ends without a report is a drop-out as in the simulator: the device backs off. It drops out as well
   where memory is refused, where training gives no finite numbers, and where the service cannot be reached in time.
3. After a crash it goes on from its folder. Finished work is sent again, the same bytes. Unfinished work begins anew
   while the service still waits for it. Work that was to go into a secure sum is lost: its secrets were in memory.
4. Under secure aggregation a report that was taken is followed by the stages of the sum; what the device keeps takes
   effect after the last.
"""

from importlib.metadata import version
from typing import Any

from pocketfleet.device_sim.attempt import Stage
from pocketfleet.device_sim.device_attempt import AttemptRunner
from pocketfleet.device_sim.device_folder import FinishedReport, PhoneFacts, WorkUnderWay
from pocketfleet.device_sim.device_parts import DeviceParts, Dropped
from pocketfleet.device_sim.eligibility import Reason
from pocketfleet.device_sim.emulated_phone import Attempt
from pocketfleet.device_sim.fault_plan import Moment
from pocketfleet.device_sim.service_client import Refused, Unreachable
from pocketfleet.errors import InputError, PocketfleetError
from pocketfleet.export.session import Runtime
from pocketfleet.training.codec import DEVICE_PARTS
from pocketfleet.training.server.protocol import (
    MASKED,
    PROTOCOL_VERSION,
    Assignment,
    CheckIn,
    EvaluationWork,
    Rule,
    TurnedAway,
)
from pocketfleet.training.server.wall_clock import wall_s

__all__ = ["EmulatedDevice"]

_DISTRIBUTION: dict[Runtime, str] = {"executorch": "executorch", "onnx": "onnxruntime"}
# After which a service that names no time is asked again, seconds of the wall: no device spins.
_LEAST_WAIT_S = 0.05
# Refusals of a report that mean it does not count and never will: nothing is wrong with the device.
_NOT_COUNTED = frozenset({404, 409, 410})


class EmulatedDevice:
    """One device; ``reports`` counts those of this life that the service took."""

    def __init__(self, parts: DeviceParts) -> None:
        self._parts = parts
        self.reports = 0
        self._runner = AttemptRunner(parts, self._crash)
        self._moments = 0
        self._told = ""

    def run(self, *, reports: int = 0) -> None:
        """Take part until there is nothing to do any more, or until so many reports count.

        Raises:
            InputError: this device cannot take part.
            Stopped: it was told to stop.
        """
        try:
            self._resume()
            while not reports or self.reports < reports:
                if not self._come():
                    return
        except Refused as exc:
            raise _refusal(exc) from exc

    def _crash(self, moment: Moment) -> None:
        self._moments += 1
        self._parts.faults.crash(moment, self._moments)

    def _come(self) -> bool:
        """Look, check in, work; false: there is no reason to come again."""
        clock, phone = self._parts.clock, self._parts.phone
        clock.wait_until(phone.free_s)
        look = phone.look(clock.now_s())
        reason = Reason(int(look.reason[0]))
        if reason is not Reason.ELIGIBLE:
            self._wait_to_be_able(reason, float(look.at_s[0]))
            return True
        news = clock.news
        self._parts.link.use(phone.request(clock.now_s()))
        answer = self._parts.service.check_in(
            CheckIn(
                protocol=PROTOCOL_VERSION,
                programs={self._parts.runtime: version(_DISTRIBUTION[self._parts.runtime])},
                codecs=[*DEVICE_PARTS, MASKED],
                app_version=f"pocketfleet {version('pocketfleet')}",
                conditions=phone.conditions(look),
                # Of data that arrives nobody says here which part is there.
                evaluates=phone.unit.num_held_out > 0 and phone.unit.arrival is None,
            )
        )
        if answer.evaluation is not None:
            self._evaluate(answer.evaluation)
            return True
        if answer.turned_away is not None:
            return self._wait_for_work(answer.turned_away, news)
        if answer.assignment is None:
            raise PocketfleetError("the service gave neither work nor a reason why not")
        self._told = ""
        self._remember_rule(answer.assignment.rule)
        work = WorkUnderWay(assignment=answer.assignment, deadline_wall_s=wall_s() + answer.assignment.deadline_in_s)
        self._parts.folder.begin(work)
        self._crash("assigned")
        self._attempt(work)
        return True

    def _evaluate(self, work: EvaluationWork) -> None:
        """Measure two versions; what does not come through in time is asked of another device."""
        clock = self._parts.clock
        until_s = clock.now_s() + work.deadline_in_s * clock.speed
        try:
            found = self._runner.evaluate(work)
            self._parts.service.evaluation(work.evaluation_id, found, until_s=until_s)
        except (Dropped, Unreachable) as exc:
            self._parts.tell(f"version {work.tried.version}: not evaluated, {exc}")
            self._parts.phone.dropped(clock.now_s(), failures=self._parts.phone.failures)
        except Refused as exc:
            if exc.status not in _NOT_COUNTED:
                raise
            self._parts.tell(f"version {work.tried.version}: the evaluation does not count, {exc.code}")
        else:
            self._told = ""
            self._parts.tell(
                f"version {work.tried.version}: {work.metric} {_value(found.tried)}, of version "
                f"{work.released.version} {_value(found.released)}, on {found.num_held_out} held out"
            )

    def _wait_to_be_able(self, reason: Reason, at_s: float) -> None:
        phone = self._parts.phone
        if reason is Reason.NO_EXAMPLES and phone.unit.arrival is None:
            held = phone.unit.num_training + phone.unit.num_held_out
            raise InputError(
                f"this device holds {held} examples, the service's rule asks for {phone.rule.min_examples} or more: "
                "nothing would ever come of it"
            )
        self._say(f"waits: {reason.word}")
        self._parts.clock.wait_until(phone.again_s(at_s))

    def _wait_for_work(self, away: TurnedAway, news: int) -> bool:
        if away.retry_after_s is None or away.reason == "finished":
            self._say(f"is not needed any more: {away.message}")
            return False
        # One that only waits for a version to be made is soon there again.
        if away.reason != "preparing":
            self._say(f"waits: {away.message}")
        self._parts.clock.wait_wall(max(away.retry_after_s, _LEAST_WAIT_S), news=news)
        return True

    def _say(self, line: str) -> None:
        """Tell, but not the same again and again."""
        if line != self._told:
            self._told = line
            self._parts.tell(line)

    def _remember_rule(self, rule: Rule) -> None:
        """By this rule the next start looks at itself."""
        facts = self._parts.folder.phone()
        if facts is not None and facts.rule != rule:
            self._parts.folder.keep_phone(
                PhoneFacts(first_s=facts.first_s, first_wall_s=facts.first_wall_s, lives=facts.lives, rule=rule)
            )

    def _resume(self) -> None:
        """Rule 3."""
        folder = self._parts.folder
        report, work = folder.report(), folder.work()
        if report is not None and work is not None and work.assignment.secure is not None:
            self._parts.tell(f"round {report.line['round']}: lost the secrets of its part in the sum")
            folder.note(report.line | {"outcome": "crashed"})
            folder.give_up()
        elif report is not None:
            self._parts.tell(f"round {report.line['round']}: sends again what was finished before")
            self._send(report, None)
        elif work is not None:
            if wall_s() < work.deadline_wall_s and self._still_open(work.assignment):
                self._parts.tell(f"round {work.assignment.round}: begins anew")
                self._attempt(work)
            else:
                folder.give_up()

    def _still_open(self, assignment: Assignment) -> bool:
        self._parts.link.use(self._parts.phone.request(self._parts.clock.now_s()))
        return assignment.assignment_id in self._parts.service.status().open_assignments

    def _attempt(self, work: WorkUnderWay) -> None:
        """One attempt, whatever becomes of it."""
        clock, phone, folder = self._parts.clock, self._parts.phone, self._parts.folder
        clock.wait_until(phone.free_s)
        look = phone.look(clock.now_s())
        folder.keep_phone_state(phone.state())
        line: dict[str, Any] = {
            "assignment_id": work.assignment.assignment_id,
            "round": work.assignment.round,
            "version": work.assignment.model_version,
            "start_s": float(look.at_s[0]),
        }
        down_bytes, failures = self._parts.link.down_bytes, phone.failures
        try:
            attempt = self._runner.run(work, look, line)
            report = folder.report()
            assert report is not None
            line = report.line | {"down_bytes": self._parts.link.down_bytes - down_bytes}
            trained_s = line["start_s"] + line["download_s"] + line["prepare_s"] + line["train_s"]
            self._send(report.model_copy(update={"line": line}), attempt, trained_s=trained_s)
        except Dropped as exc:
            self._drop(line, exc, failures=failures)
        folder.keep_phone_state(phone.state())

    def _drop(self, line: dict[str, Any], why: Dropped, *, failures: int) -> None:
        """Rule 2, of an attempt that began after so many ``failures``."""
        clock, phone, folder = self._parts.clock, self._parts.phone, self._parts.folder
        self._parts.tell(f"round {line['round']}: dropped out, {why}")
        phone.dropped(clock.now_s(), failures=failures)
        folder.note(line | {"outcome": str(why)})
        folder.give_up()

    def _send(self, report: FinishedReport, attempt: Attempt | None, *, trained_s: float | None = None) -> None:
        """Send a finished report.

        Args:
            report: as it was written down.
            attempt: says what becomes of its upload, which after a crash nobody knows.
            trained_s: when training ended.

        Raises:
            Dropped: it did not get through in time.
        """
        clock, phone, folder, link = self._parts.clock, self._parts.phone, self._parts.folder, self._parts.link
        # Writing the report down is no part of the phone's time; after a crash the upload begins now.
        began_s, up_bytes = clock.now_s() if trained_s is None else trained_s, link.up_bytes
        until_s = self._runner.deadline_s(report.deadline_wall_s)
        cut = attempt is not None and attempt.stage is Stage.UPLOAD
        if attempt is not None and cut:
            until_s = min(until_s, began_s + attempt.upload_s)
        plan = phone.request(began_s) if attempt is None else phone.upload(attempt, began_s)
        link.use(plan, from_s=began_s, until_s=until_s, breaks_after=self._runner.breaks_after())
        try:
            answer = self._parts.service.report(report.assignment_id, report.facts, folder.update(), until_s=until_s)
        except Unreachable as exc:
            why = Dropped(attempt.drop.word if attempt is not None and cut else "deadline")
            if attempt is None:
                self._drop(report.line, why, failures=phone.failures)
                return
            raise why from exc
        except Refused as exc:
            if exc.status not in _NOT_COUNTED:
                raise
            self._parts.tell(f"round {report.line['round']}: the report does not count, {exc.code}")
            folder.note(report.line | {"outcome": exc.code})
            folder.give_up()
            return
        self._crash("reported")
        uploaded_s, up_bytes = clock.now_s(), link.up_bytes - up_bytes
        if attempt is not None and self._runner.participation is not None:
            ends_s = self._runner.deadline_s(report.deadline_wall_s)
            self._runner.participation.run(self._parts, report.assignment_id, round_ends_s=ends_s)
        line = report.line | {
            "outcome": "accepted",
            "upload_s": uploaded_s - began_s,
            "up_bytes": up_bytes,
        }
        folder.acknowledge(report.model_copy(update={"line": line}))
        self.reports += 1
        self._told = ""
        self._parts.tell(_told_round(line, answer.code))


def _value(mean: float | None) -> str:
    return "not finite" if mean is None else f"{mean:.4g}"


def _told_round(line: dict[str, Any], code: str) -> str:
    text = f"round {line['round']}: trained version {line['version']} for {line['steps']} steps"
    if "train_s" in line:
        text += f" in {line['train_s']:.1f} s"
    text += f", loss {line['train_loss']:.4g}"
    before, after = line["metric_global"], line["metric_personalised"]
    if before is not None and after is not None:
        text += f", {line['metric']} {before:.4g} -> {after:.4g} on {line['num_held_out']} held out"
    if line.get("late_steps"):
        text += f"; {line['late_steps']} steps took longer here than on the phone, by {line['latest_s']:.2g} s at most"
    return f"{text}, {code}"


def _refusal(refused: Refused) -> InputError:
    """What a user can do about it."""
    if refused.status in {401, 403}:
        return InputError(
            f"the service does not take this device: {refused}. Ask who runs it for a new token, and enrol anew in "
            "another --state folder"
        )
    return InputError(
        f"the service refuses what this device says: {refused}. It may be of another version of pocketfleet"
    )
