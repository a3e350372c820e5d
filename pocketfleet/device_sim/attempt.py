"""A device's attempt at a round: download, train, upload; how long each takes, and what ends it early.

Rules:

1. An attempt starts at its assignment. Download, training and upload follow one another.
2. It ends early at whatever comes first: the phone is picked up, unplugged, or leaves unmetered Wi-Fi (where the
   rule asks for these), its memory is gone while it trains, its battery falls to the rule's floor, it gets too hot
   (``training_heat.py``, which slows training too), its link is lost during a transfer, its deadline.
3. Picked up, unplugged, low on battery or too hot *while training*, with a step done: under ``partial_work =
   "report"`` the device uploads what it has at once; otherwise, and in every other case, it drops out. Out of memory
   the process is killed, and its work with it.
4. While uploading only the network and the deadline matter: the work is done.
5. A device stops at its deadline; being done at the very moment is too late.
6. A transfer cut short has moved its share of the bytes.
7. Where the rule does not ask for unmetered Wi-Fi, a device that leaves it goes on: a transfer on the link that it
   began on, the next one on the link of its own beginning.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.day_changes import CHARGING, IDLE, WIFI, DayChanges
from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.device_sim.memory import FreeMemory
from pocketfleet.device_sim.training_heat import Course

__all__ = ["Attempts", "Drop", "Journey", "Stage", "carry_out", "first_violation"]

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Int8s = npt.NDArray[np.int8]


class Drop(IntEnum):
    """Why an attempt ended without a report; the lower-case name is what the event log prints."""

    NONE = 0
    IN_USE = 1
    NOT_CHARGING = 2
    METERED = 3
    LOW_BATTERY = 4
    LINK_LOST = 5
    DEADLINE = 6
    TOO_HOT = 7
    OUT_OF_MEMORY = 8

    @property
    def word(self) -> str:
        """The name in an event log, such as ``link_lost``."""
        return self.name.lower()


class Stage(IntEnum):
    """How far an attempt came."""

    DOWNLOAD = 0
    TRAIN = 1
    UPLOAD = 2
    DONE = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Journey:
    """What the attempts need, columns ``[n]``; seconds are those of an undisturbed stage.

    Attributes:
        device: dense index.
        start_s: virtual time of the assignment.
        deadline_s: virtual time of the round's deadline.
        steps: training steps wanted, at least 1.
        download_s, step_s: seconds of the download and of one step.
        download_lost_after_s: seconds of transfer until the link is lost for good; inf: never.
        upload: called once with the virtual times at which uploads would begin, ``[n]``; the seconds they then take,
            and those until the link is lost for good.
        battery_lasts_s: seconds of training until the battery is at its floor; inf: never.
        course: how heat slows the training down and ends it; ``None``: not at all.
    """

    device: Int64s
    start_s: Floats
    deadline_s: Floats
    steps: Int64s
    download_s: Floats
    step_s: Floats
    download_lost_after_s: Floats
    upload: Callable[[Floats], tuple[Floats, Floats]]
    battery_lasts_s: Floats
    course: Course | None = None

    def training_s(self) -> Floats:
        """Seconds that all the steps take."""
        work_s: Floats = self.steps * self.step_s
        return work_s if self.course is None else self.course.elapsed_s(work_s)

    def steps_after(self, training_s: Floats) -> Floats:
        """How many steps are done after so many seconds, whole ones."""
        work_s = training_s if self.course is None else self.course.work_s(training_s)
        steps: Floats = np.floor(work_s / self.step_s)
        return steps

    def too_hot_after_s(self) -> Floats:
        """Seconds of training until the phone is too hot; inf: never."""
        return np.full(len(self.device), np.inf) if self.course is None else self.course.too_hot_s


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attempts:
    """How the attempts went, columns ``[n]``.

    Attributes:
        steps: training steps completed.
        download_s, train_s, upload_s: seconds spent in each stage.
        downloaded_ratio, uploaded_ratio: share of each transfer's bytes that moved.
        end_s: virtual time at which the report arrives or the device drops out.
        stage: ``Stage`` reached; ``DONE`` with a report.
        interrupted: ``Drop`` that ended training early, also where a partial report followed.
        drop: ``Drop`` that ended the attempt; ``NONE`` with a report.
    """

    steps: Int64s
    download_s: Floats
    train_s: Floats
    upload_s: Floats
    downloaded_ratio: Floats
    uploaded_ratio: Floats
    end_s: Floats
    stage: Int8s
    interrupted: Int8s
    drop: Int8s


def first_violation(day: DayChanges, rule: Rule, from_s: Floats) -> tuple[Floats, Int8s]:
    """When each device first breaks the rule's idle, charging or unmetered, and which.

    Args:
        day: the devices' changes, ``[n]``; what is not in them is not looked for.
        rule: conditions it does not ask for are never broken.
        from_s: ``[n]`` virtual times within ``day``; changes up to them are not looked at.

    Returns:
        Times ``[n]`` (inf: none) and ``Drop`` values ``[n]``.
    """
    needed = np.uint8(rule.idle * IDLE + rule.charging * CHARGING + rule.unmetered * WIFI)
    when, what = np.full(len(from_s), np.inf), np.full(len(from_s), Drop.NONE, dtype=np.int8)
    broken = ((day.code[:, 1:] & needed) != needed) & (day.time_s > from_s[:, np.newaxis]) & np.isfinite(day.time_s)
    hit = np.flatnonzero(broken.any(axis=1))
    if len(hit) == 0:
        return when, what
    first = broken[hit].argmax(axis=1)
    missing = needed & ~day.code[hit, first + 1]
    when[hit] = day.time_s[hit, first]
    # Wi-Fi first: of what is broken at one time, only this forbids an upload too.
    what[hit] = np.select([(missing & WIFI) > 0, (missing & IDLE) > 0], [Drop.METERED, Drop.IN_USE], Drop.NOT_CHARGING)
    return when, what


def carry_out(
    journey: Journey,
    *,
    day: DayChanges,
    rule: Rule,
    partial_work: bool,
    memory: FreeMemory | None = None,
    needed_bytes: int = 0,
) -> Attempts:
    """Let each device attempt its work; see the module's rules.

    Args:
        journey: what is to be done, ``[n]``.
        day: the devices' changes from their starts to their deadlines, ``[n]``.
        rule: what the phone must go on being.
        partial_work: whether interrupted training is reported.
        memory: what the devices have free; without, nothing is ever killed.
        needed_bytes: of it, while training.
    """
    start, deadline = journey.start_s, (journey.deadline_s, Drop.DEADLINE)
    broken = first_violation(day, rule, start)
    download = _carried(
        start, journey.download_s, broken, (start + journey.download_lost_after_s, Drop.LINK_LOST), deadline
    )

    downloaded, training_s, killed_s = start + journey.download_s, journey.training_s(), np.full(len(start), np.inf)
    if memory is not None:
        until_s = np.minimum(downloaded + training_s, journey.deadline_s)
        killed_s = memory.killed_s(journey.device, downloaded, until_s, day, needed_bytes=needed_bytes)
    train = _carried(
        downloaded,
        training_s,
        broken,
        (killed_s, Drop.OUT_OF_MEMORY),
        (downloaded + journey.battery_lasts_s, Drop.LOW_BATTERY),
        (downloaded + journey.too_hot_after_s(), Drop.TOO_HOT),
        deadline,
    )
    stopped = ~download.cut & train.cut
    train_s = np.where(download.cut, 0.0, train.spent_s)
    steps = np.where(stopped, np.minimum(journey.steps_after(train_s), journey.steps), journey.steps).astype(np.int64)
    steps = np.where(download.cut, 0, steps)
    lost_work = np.isin(train.cause, (Drop.METERED, Drop.DEADLINE, Drop.OUT_OF_MEMORY))
    dropped = stopped & ~(partial_work & (steps >= 1) & ~lost_work)

    # Only the network and the deadline matter to an upload.
    upload_from = downloaded + train_s
    whole_s, lost_after_s = journey.upload(upload_from)
    network = Rule(idle=False, charging=False, unmetered=rule.unmetered, min_battery_ratio=0.0)
    off_wifi, lost = first_violation(day, network, upload_from), (upload_from + lost_after_s, Drop.LINK_LOST)
    upload = _carried(upload_from, whole_s, off_wifi, lost, deadline)
    reached = ~download.cut & ~dropped
    upload_s = np.where(reached, upload.spent_s, 0.0)

    none, ends = np.full(len(start), Drop.NONE, dtype=np.int8), [download.cut, dropped, reached & upload.cut]
    stages = [Stage.DOWNLOAD, Stage.TRAIN, Stage.UPLOAD]
    return Attempts(
        steps=steps,
        download_s=download.spent_s,
        train_s=train_s,
        upload_s=upload_s,
        downloaded_ratio=_ratio(download.spent_s, journey.download_s),
        uploaded_ratio=_ratio(upload_s, whole_s),
        end_s=start + download.spent_s + train_s + upload_s,
        stage=np.select(ends, stages, Stage.DONE).astype(np.int8),
        interrupted=np.where(stopped, train.cause, none).astype(np.int8),
        drop=np.select(ends, [download.cause, train.cause, upload.cause], none).astype(np.int8),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Carried:
    """A stage of attempts: the seconds that it lasted, whether it was cut, and what came first or would have."""

    spent_s: Floats
    cut: npt.NDArray[np.bool_]
    cause: Int8s


def _carried(from_s: Floats, whole_s: Floats, *causes: tuple[Floats, npt.ArrayLike]) -> _Carried:
    """A stage of ``whole_s`` seconds that the first of ``causes`` cuts, also at its very end."""
    when, cause = _earliest(*causes)
    cut = when <= from_s + whole_s
    return _Carried(spent_s=np.where(cut, when - from_s, whole_s), cut=cut, cause=cause)


def _ratio(spent_s: Floats, whole_s: Floats) -> Floats:
    return np.divide(spent_s, whole_s, out=np.ones_like(whole_s), where=whole_s > 0.0)


def _earliest(*causes: tuple[Floats, npt.ArrayLike]) -> tuple[Floats, Int8s]:
    """The first cause in time of each row, and when; of equal times the one named first."""
    times = np.stack([when for when, _ in causes])
    words = np.stack([np.broadcast_to(np.asarray(what, dtype=np.int8), times.shape[1:]) for _, what in causes])
    first = times.argmin(axis=0)
    rows = np.arange(times.shape[1])
    return times[first, rows], words[first, rows]
