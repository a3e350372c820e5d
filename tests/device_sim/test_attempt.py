import dataclasses

import numpy as np
import pytest
from scripted import ScriptedDay

from pocketfleet.device_sim.attempt import Attempts, Drop, Journey, Stage, carry_out
from pocketfleet.device_sim.day_changes import DayChanges
from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.device_sim.memory import FreeMemory

# One device starts at 100 s: 10 s of download (till 110), 5 steps of 4 s (till 130), 20 s of upload (till 150);
# the deadline is at 200 s.
ALL = Rule(idle=True, charging=True, unmetered=True, min_battery_ratio=0.3)


def journey(devices: int = 1, **changed: float) -> Journey:
    values = {
        "start_s": 100.0,
        "deadline_s": 200.0,
        "download_s": 10.0,
        "step_s": 4.0,
        "upload_s": 20.0,
        "download_lost_after_s": np.inf,
        "upload_lost_after_s": np.inf,
        "battery_lasts_s": np.inf,
    } | changed
    columns = {name: np.full(devices, value) for name, value in values.items() if name != "steps"}
    upload = columns.pop("upload_s"), columns.pop("upload_lost_after_s")
    return Journey(
        device=np.arange(devices),
        steps=np.full(devices, int(changed.get("steps", 5)), dtype=np.int64),
        upload=lambda _from_s: upload,
        **columns,
    )


def changes(made: Journey, *gaps: tuple[int, str, float, float]) -> DayChanges:
    return ScriptedDay(*gaps).changes(made.device, made.start_s, made.deadline_s)


def attempt(*gaps: tuple[int, str, float, float], partial_work: bool = True, rule: Rule = ALL, **changed: float):
    made = journey(**changed)
    return carry_out(made, day=changes(made, *gaps), rule=rule, partial_work=partial_work)


def check(
    found: Attempts,
    *,
    stage: Stage,
    drop: Drop,
    end_s: float,
    steps: int,
    spent_s: tuple[float, float, float],
    interrupted: Drop = Drop.NONE,
) -> None:
    assert found.stage[0] == stage
    assert found.drop[0] == drop
    assert found.interrupted[0] == interrupted
    assert found.end_s[0] == pytest.approx(end_s)
    assert found.steps[0] == steps
    assert (found.download_s[0], found.train_s[0], found.upload_s[0]) == pytest.approx(spent_s)


def test_an_undisturbed_attempt_reports_after_all_three_stages() -> None:
    found = attempt()
    check(found, stage=Stage.DONE, drop=Drop.NONE, end_s=150.0, steps=5, spent_s=(10.0, 20.0, 20.0))
    assert found.downloaded_ratio[0] == found.uploaded_ratio[0] == 1.0


@pytest.mark.parametrize(
    ("condition", "drop"), [("idle", Drop.IN_USE), ("charging", Drop.NOT_CHARGING), ("wifi", Drop.METERED)]
)
def test_a_broken_condition_ends_the_download(condition: str, drop: Drop) -> None:
    # At 104 s, 4 of 10 s in: 40 % of the bytes have moved.
    found = attempt((0, condition, 104.0, 500.0))
    check(found, stage=Stage.DOWNLOAD, drop=drop, end_s=104.0, steps=0, spent_s=(4.0, 0.0, 0.0))
    assert found.downloaded_ratio[0] == pytest.approx(0.4)


@pytest.mark.parametrize(("condition", "drop"), [("idle", Drop.IN_USE), ("charging", Drop.NOT_CHARGING)])
def test_partial_work_is_uploaded_at_once(condition: str, drop: Drop) -> None:
    # At 119 s, 9 s into training: 2 whole steps of 4 s; upload till 139 s.
    found = attempt((0, condition, 119.0, 500.0))
    check(found, stage=Stage.DONE, drop=Drop.NONE, end_s=139.0, steps=2, spent_s=(10.0, 9.0, 20.0), interrupted=drop)


@pytest.mark.parametrize(("condition", "drop"), [("idle", Drop.IN_USE), ("charging", Drop.NOT_CHARGING)])
def test_partial_work_is_discarded_where_the_experiment_says_so(condition: str, drop: Drop) -> None:
    found = attempt((0, condition, 119.0, 500.0), partial_work=False)
    check(found, stage=Stage.TRAIN, drop=drop, end_s=119.0, steps=2, spent_s=(10.0, 9.0, 0.0), interrupted=drop)


def test_less_than_one_step_is_nothing_to_report() -> None:
    found = attempt((0, "idle", 113.0, 500.0))
    check(
        found,
        stage=Stage.TRAIN,
        drop=Drop.IN_USE,
        end_s=113.0,
        steps=0,
        spent_s=(10.0, 3.0, 0.0),
        interrupted=Drop.IN_USE,
    )


def test_without_wifi_partial_work_cannot_be_uploaded() -> None:
    found = attempt((0, "wifi", 119.0, 500.0))
    check(
        found,
        stage=Stage.TRAIN,
        drop=Drop.METERED,
        end_s=119.0,
        steps=2,
        spent_s=(10.0, 9.0, 0.0),
        interrupted=Drop.METERED,
    )


def test_one_that_leaves_home_uploads_nothing() -> None:
    # Unplugged and off Wi-Fi at one time, as a recorded day may have it.
    found = attempt((0, "charging", 119.0, 500.0), (0, "wifi", 119.0, 500.0))
    assert (found.stage[0], found.drop[0], found.end_s[0]) == (Stage.TRAIN, Drop.METERED, 119.0)


def test_a_low_battery_ends_training_but_not_the_report() -> None:
    # 13 s of training: 3 steps of 4 s; upload till 143 s.
    found = attempt(battery_lasts_s=13.0)
    check(
        found,
        stage=Stage.DONE,
        drop=Drop.NONE,
        end_s=143.0,
        steps=3,
        spent_s=(10.0, 13.0, 20.0),
        interrupted=Drop.LOW_BATTERY,
    )


def test_while_uploading_only_the_network_matters() -> None:
    found = attempt((0, "idle", 135.0, 500.0), (0, "charging", 136.0, 500.0))
    check(found, stage=Stage.DONE, drop=Drop.NONE, end_s=150.0, steps=5, spent_s=(10.0, 20.0, 20.0))
    found = attempt((0, "wifi", 135.0, 500.0))
    check(found, stage=Stage.UPLOAD, drop=Drop.METERED, end_s=135.0, steps=5, spent_s=(10.0, 20.0, 5.0))
    assert found.uploaded_ratio[0] == pytest.approx(0.25)


def test_a_link_is_lost_during_a_transfer_only() -> None:
    found = attempt(download_lost_after_s=6.0)
    check(found, stage=Stage.DOWNLOAD, drop=Drop.LINK_LOST, end_s=106.0, steps=0, spent_s=(6.0, 0.0, 0.0))
    found = attempt(download_lost_after_s=11.0, upload_lost_after_s=21.0)
    check(found, stage=Stage.DONE, drop=Drop.NONE, end_s=150.0, steps=5, spent_s=(10.0, 20.0, 20.0))
    found = attempt(upload_lost_after_s=15.0)
    check(found, stage=Stage.UPLOAD, drop=Drop.LINK_LOST, end_s=145.0, steps=5, spent_s=(10.0, 20.0, 15.0))


@pytest.mark.parametrize(
    ("deadline_s", "stage", "steps", "spent_s"),
    [
        (105.0, Stage.DOWNLOAD, 0, (5.0, 0.0, 0.0)),
        (119.0, Stage.TRAIN, 2, (10.0, 9.0, 0.0)),
        (131.0, Stage.UPLOAD, 5, (10.0, 20.0, 1.0)),
        (150.0, Stage.UPLOAD, 5, (10.0, 20.0, 20.0)),  # done at the very moment is too late
    ],
)
def test_a_device_stops_at_its_deadline(
    deadline_s: float, stage: Stage, steps: int, spent_s: tuple[float, float, float]
) -> None:
    interrupted = Drop.DEADLINE if stage is Stage.TRAIN else Drop.NONE
    check(
        attempt(deadline_s=deadline_s),
        stage=stage,
        drop=Drop.DEADLINE,
        end_s=deadline_s,
        steps=steps,
        spent_s=spent_s,
        interrupted=interrupted,
    )


def test_what_the_rule_does_not_ask_for_interrupts_nobody() -> None:
    nothing = Rule(idle=False, charging=False, unmetered=False, min_battery_ratio=0.0)
    gaps = [(0, condition, 104.0, 500.0) for condition in ("idle", "charging", "wifi")]
    found = attempt(*gaps, rule=nothing)
    check(found, stage=Stage.DONE, drop=Drop.NONE, end_s=150.0, steps=5, spent_s=(10.0, 20.0, 20.0))


def test_a_change_that_breaks_nothing_is_passed_over() -> None:
    # Device 1's gap is none of device 0's; a gap that ended before the start is over.
    found = attempt((0, "idle", 10.0, 100.0), (1, "wifi", 105.0, 106.0))
    check(found, stage=Stage.DONE, drop=Drop.NONE, end_s=150.0, steps=5, spent_s=(10.0, 20.0, 20.0))


def test_devices_do_not_touch_each_other() -> None:
    made = journey(devices=4)
    day = changes(made, (0, "idle", 104.0, 500.0), (2, "charging", 119.0, 500.0))
    many = carry_out(made, day=day, rule=ALL, partial_work=True)
    assert many.drop.tolist() == [Drop.IN_USE, Drop.NONE, Drop.NONE, Drop.NONE]
    assert many.steps.tolist() == [0, 5, 2, 5]
    assert many.end_s.tolist() == [104.0, 150.0, 139.0, 150.0]


def test_an_upload_is_told_when_it_begins() -> None:
    # Picked up at 119 s: the upload begins there, not at 130 s.
    told = []
    upload = np.full(1, 20.0), np.full(1, np.inf)
    planned = dataclasses.replace(journey(), upload=lambda from_s: (told.append(from_s.tolist()), upload)[1])
    carry_out(planned, day=changes(planned, (0, "idle", 119.0, 500.0)), rule=ALL, partial_work=True)
    carry_out(planned, day=changes(planned), rule=ALL, partial_work=True)
    assert told == [[119.0], [130.0]]


def with_memory(*gaps: tuple[int, str, float, float], rule: Rule, needed_bytes: int, **changed: float) -> Attempts:
    # 100 MB and no pressure from 100 s to 200 s in this phone; the smallest app takes more than 5 MB of it.
    memory = FreeMemory(seed=1, typical_bytes=np.full(1, 1e8))
    at_s = np.linspace(100.0, 200.0, 101)
    free = memory.free_bytes(np.zeros(101, dtype=np.int64), at_s, at_s < 0.0)
    assert np.all(free == 1e8)
    made = journey(**changed)
    return carry_out(
        made,
        day=changes(made, *gaps),
        rule=rule,
        partial_work=True,
        memory=memory,
        needed_bytes=needed_bytes,
    )


NOT_IDLE = Rule(idle=False, charging=True, unmetered=True, min_battery_ratio=0.3)


def test_an_app_that_takes_the_memory_kills_training_and_its_work() -> None:
    # At 119 s, two whole steps in: none is reported.
    found = with_memory((0, "idle", 119.0, 500.0), rule=NOT_IDLE, needed_bytes=95_000_000)
    check(
        found,
        stage=Stage.TRAIN,
        drop=Drop.OUT_OF_MEMORY,
        end_s=119.0,
        steps=2,
        spent_s=(10.0, 9.0, 0.0),
        interrupted=Drop.OUT_OF_MEMORY,
    )


def test_only_training_is_killed() -> None:
    # An app in front during the download, and one during the upload.
    found = with_memory((0, "idle", 103.0, 109.0), (0, "idle", 131.0, 149.0), rule=NOT_IDLE, needed_bytes=95_000_000)
    check(found, stage=Stage.DONE, drop=Drop.NONE, end_s=150.0, steps=5, spent_s=(10.0, 20.0, 20.0))
    # In front when training is about to start.
    found = with_memory((0, "idle", 103.0, 111.0), rule=NOT_IDLE, needed_bytes=95_000_000)
    assert (found.drop[0], found.end_s[0], found.steps[0]) == (Drop.OUT_OF_MEMORY, 110.0, 0)


def test_where_idle_is_asked_for_a_phone_in_use_stops_before_it_is_killed() -> None:
    found = with_memory((0, "idle", 119.0, 500.0), rule=ALL, needed_bytes=95_000_000)
    assert (found.interrupted[0], found.drop[0], found.end_s[0]) == (Drop.IN_USE, Drop.NONE, 139.0)


def test_a_kill_after_the_deadline_is_none() -> None:
    found = with_memory((0, "idle", 119.0, 500.0), rule=NOT_IDLE, needed_bytes=95_000_000, deadline_s=118.0)
    assert (found.drop[0], found.end_s[0]) == (Drop.DEADLINE, 118.0)
