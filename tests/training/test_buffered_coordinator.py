"""The buffered coordinator's rules one by one, and against a history that is read anew for each answer."""

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.training.buffered_coordinator import BufferedCoordinator
from pocketfleet.training.round import BufferedPlan, CheckInCode, ReportCode

POPULATION = 5
PLAN = BufferedPlan(buffer=2, concurrency=3, max_staleness=1, deadline_s=10.0)


def check_in(coordinator: BufferedCoordinator, *devices: int, at: float) -> list[tuple[int, str, float | None, int]]:
    answer = coordinator.check_in_many(devices, [at] * len(devices))
    retry = [None if math.isnan(at) else at for at in answer.retry_at_s.tolist()]
    codes = [CheckInCode(code).name for code in answer.code]
    assert answer.round.tolist() == answer.model_version.tolist()
    return list(zip(answer.assignment_id.tolist(), codes, retry, answer.model_version.tolist(), strict=True))


def report(coordinator: BufferedCoordinator, *ids: int, at: float) -> list[tuple[str, int]]:
    answer = coordinator.report_many(ids, [7] * len(ids), [at] * len(ids))
    accepted = answer.code == ReportCode.ACCEPTED
    assert answer.weight.tolist() == np.where(accepted, 7.0, 0.0).tolist()
    return list(zip([ReportCode(code).name for code in answer.code], answer.staleness.tolist(), strict=True))


def make() -> BufferedCoordinator:
    return BufferedCoordinator(PLAN, population=POPULATION)


def test_slots_are_handed_out_while_there_are_any() -> None:  # rule 2
    coordinator = make()
    assert check_in(coordinator, 4, 2, 0, 1, at=1.0) == [
        (0, "ASSIGNED", None, 0),
        (1, "ASSIGNED", None, 0),
        (2, "ASSIGNED", None, 0),
        (-1, "ROUND_FULL", 11.0, 0),
    ]
    assert (coordinator.open_slots, coordinator.reports_wanted) == (0, 2)


def test_a_deadline_frees_the_slot_of_its_own_assignment() -> None:  # rule 3
    coordinator = make()
    check_in(coordinator, 0, 1, at=0.0)
    check_in(coordinator, 2, at=4.0)
    assert check_in(coordinator, 3, at=9.9)[0][1] == "ROUND_FULL"
    assert check_in(coordinator, 3, 4, at=10.0) == [(3, "ASSIGNED", None, 0), (4, "ASSIGNED", None, 0)]
    assert report(coordinator, 0, at=10.0) == [("DEADLINE_PASSED", 0)]
    assert report(coordinator, 2, at=13.9) == [("ACCEPTED", 0)]


def test_a_buffer_takes_one_report_a_device() -> None:  # rule 4
    coordinator = make()
    check_in(coordinator, 0, at=0.0)
    report(coordinator, 0, at=1.0)
    assert check_in(coordinator, 0, at=2.0) == [(-1, "ALREADY_REPORTED", 12.0, 0)]
    check_in(coordinator, 1, at=3.0)
    assert check_in(coordinator, 0, at=4.0) == [(-1, "ALREADY_REPORTED", 13.0, 0)]
    report(coordinator, 1, at=5.0)
    assert check_in(coordinator, 0, at=5.0) == [(2, "ASSIGNED", None, 1)]


def test_a_restarted_device_takes_its_own_slot() -> None:  # rule 5
    coordinator = make()
    check_in(coordinator, 0, 1, 2, at=0.0)
    assert check_in(coordinator, 1, at=3.0) == [(3, "ASSIGNED", None, 0)]
    assert report(coordinator, 1, 3, at=4.0) == [("WITHDRAWN", 0), ("ACCEPTED", 0)]


def test_a_full_buffer_makes_a_version_and_old_reports_count_until_they_are_stale() -> None:  # rules 1, 6, 7, 8
    coordinator = make()
    check_in(coordinator, 0, 1, 2, at=0.0)
    assert report(coordinator, 0, 1, at=1.0) == [("ACCEPTED", 0), ("ACCEPTED", 0)]
    (closing,) = coordinator.advance(1.0)
    assert (closing.round, closing.model_version, closing.time_s, closing.opened_s) == (0, 0, 1.0, 0.0)
    assert (closing.succeeded, closing.reason, closing.assigned, closing.withdrawn) == (True, "buffer", 3, 0)
    assert (closing.device.tolist(), closing.num_examples.tolist()) == ([0, 1], [7, 7])
    check_in(coordinator, 0, 1, at=1.0)
    report(coordinator, 3, 4, at=2.0)
    # Two versions since the assignment of device 2, one more than allowed; and again.
    assert report(coordinator, 2, 2, 0, 99, at=3.0) == [("STALE", 2), ("STALE", 2), ("REPEATED", 2), ("UNKNOWN", -1)]
    assert (coordinator.round, coordinator.model_version, coordinator.open_slots) == (2, 2, 3)


def test_wrong_input_changes_nothing() -> None:  # rule 9
    coordinator = make()
    check_in(coordinator, 0, at=5.0)
    before = {name: column.tolist() for name, column in coordinator.state().items()}
    for call, message in (
        (lambda: coordinator.check_in_many([POPULATION], [6.0]), "device must be 0..4"),
        (lambda: coordinator.check_in_many([1, 2], [6.0, 5.5]), "never decrease"),
        (lambda: coordinator.report_many([0], [0], [6.0]), "num_examples must be 1 or more"),
        (lambda: coordinator.report_many([0], [1], [4.0]), "never decrease"),
        (lambda: coordinator.advance(math.nan), "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert {name: column.tolist() for name, column in coordinator.state().items()} == before
    with pytest.raises(ValueError, match=r"plan.buffer must be 1..1 \(the population\), got 2"):
        BufferedCoordinator(PLAN, population=1)
    with pytest.raises(ValueError, match="another plan"):
        BufferedCoordinator.restore(BufferedPlan(**{**PLAN_FIELDS, "buffer": 3}), coordinator.state())


PLAN_FIELDS = {"buffer": 2, "concurrency": 3, "max_staleness": 1, "deadline_s": 10.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"buffer": 0}, "buffer must be an integer, 1 or more, got 0"),
        ({"concurrency": 0}, "concurrency must be an integer, 1 or more, got 0"),
        ({"max_staleness": -1}, "max_staleness must be an integer, 0 or more, got -1"),
        ({"deadline_s": math.inf}, "deadline_s must be more than 0"),
    ],
)
def test_wrong_plans_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BufferedPlan(**{**PLAN_FIELDS, **change})


# --- any history


@dataclass
class Work:
    device: int
    version: int
    from_s: float
    outcome: str = ""  # how it ended
    order: int = 0  # of acceptance


class PlainBuffer:
    """Keeps all that ever happened and looks through all of it for each answer."""

    def __init__(self) -> None:
        self.works: list[Work] = []
        self.filled_s: list[float] = []

    def give_up(self, now_s: float) -> None:
        for work in self.works:
            if not work.outcome and work.from_s + PLAN.deadline_s <= now_s:
                work.outcome = "DEADLINE_PASSED"

    def held(self) -> list[Work]:
        accepted = [work for work in self.works if work.outcome == "ACCEPTED"]
        return sorted(accepted, key=lambda work: work.order)[PLAN.buffer * len(self.filled_s) :]

    def check_in(self, device: int, now_s: float) -> tuple[str, int]:
        self.give_up(now_s)
        live = [work for work in self.works if not work.outcome]
        mine = [work for work in live if work.device == device]
        for work in mine:
            work.outcome = "WITHDRAWN"
        if not mine and device in [work.device for work in self.held()]:
            return "ALREADY_REPORTED", len(self.filled_s)
        if not mine and len(live) == PLAN.concurrency:
            return "ROUND_FULL", len(self.filled_s)
        self.works.append(Work(device, len(self.filled_s), now_s))
        return "ASSIGNED", len(self.filled_s)

    def report(self, number: int, now_s: float) -> tuple[str, int]:
        self.give_up(now_s)
        if number >= len(self.works):
            return "UNKNOWN", -1
        work = self.works[number]
        staleness = len(self.filled_s) - work.version
        if work.outcome:
            return "REPEATED" if work.outcome == "ACCEPTED" else work.outcome, staleness
        work.outcome = "ACCEPTED" if staleness <= PLAN.max_staleness else "STALE"
        if work.outcome == "ACCEPTED":
            work.order = sum(other.outcome == "ACCEPTED" for other in self.works)
            if len(self.held()) == PLAN.buffer:
                self.filled_s.append(now_s)
        return work.outcome, staleness


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["check_in", "report"]), st.integers(0, POPULATION - 1), st.sampled_from([0.0, 1.0, 6.0])
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.data())
def test_any_history_in_any_batches_is_answered_as_read_from_its_records(
    steps: list[tuple[str, int, float]], data: st.DataObject
) -> None:
    plain, coordinator, now_s = PlainBuffer(), make(), 0.0
    batch: list[tuple[int, float]] = []
    expected: list[tuple[str, int]] = []
    closings = []
    kind_before = ""

    def send() -> None:
        nonlocal coordinator, batch, expected
        columns = ([each for each, _ in batch], [at for _, at in batch])
        if batch and kind_before == "check_in":
            answer = coordinator.check_in_many(*columns)
            found = zip([CheckInCode(code).name for code in answer.code], answer.model_version.tolist(), strict=True)
            assert list(found) == expected
        elif batch:
            told = coordinator.report_many(columns[0], [3] * len(batch), columns[1])
            names = [ReportCode(code).name for code in told.code]
            assert list(zip(names, told.staleness.tolist(), strict=True)) == expected
        closings.extend(coordinator.advance(now_s))
        batch, expected = [], []
        if data.draw(st.booleans()):
            file = io.BytesIO()
            np.savez(file, **coordinator.state())
            file.seek(0)
            with np.load(file, allow_pickle=False) as state:
                coordinator = BufferedCoordinator.restore(PLAN, dict(state))

    for kind, number, later_s in steps:
        if kind != kind_before or data.draw(st.booleans()):
            send()
        kind_before, now_s = kind, now_s + later_s
        chosen = number if kind == "check_in" else max(0, len(plain.works) - 3 + number)
        expected.append(plain.check_in(chosen, now_s) if kind == "check_in" else plain.report(chosen, now_s))
        batch.append((chosen, now_s))
    send()
    assert [closing.time_s for closing in closings] == plain.filled_s
    assert all(len(closing.device) == PLAN.buffer == len(set(closing.device.tolist())) for closing in closings)
    assert coordinator.open_slots == PLAN.concurrency - sum(not work.outcome for work in plain.works)
