import dataclasses
import io
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from plain_coordinator import PlainCoordinator

from pocketfleet.training.coordinator import Coordinator
from pocketfleet.training.round import CheckInCode, CheckIns, Int64s, ReportCode, Reports, RoundClosed, RoundPlan
from pocketfleet.training.selection import Feedback

POPULATION = 6
# 3 reports wanted of 4 devices, 2 make a model at the deadline, 10 seconds after the first assignment.
PLAN = RoundPlan(cohort=3, over_selection=1.3, minimum_ratio=0.6, deadline_s=10.0)
# The same every 30 seconds.
SCHEDULED = dataclasses.replace(PLAN, interval_s=30.0)


# The same with a window of five seconds.
WINDOWED = dataclasses.replace(PLAN, selection_window_s=5.0)


class Highest:
    """Chooses the devices with the highest numbers, so that every choice is known beforehand."""

    needs_losses = False

    def choose(self, candidates: Int64s, *, count: int, round_index: int) -> Int64s:
        del round_index
        return candidates[-count:]

    def learn(self, feedback: Feedback) -> None: ...

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None: ...


def make(plan: RoundPlan = PLAN, *, population: int = POPULATION, model_version: int = 0) -> Coordinator:
    return Coordinator(plan, population=population, model_version=model_version, selection=Highest())


def check_in(coordinator: Coordinator, *devices: int, at: float) -> list[tuple[int, str, float | None, int, int]]:
    return check_in_rows(coordinator.check_in_many(devices, [at] * len(devices)))


def report(coordinator: Coordinator, *ids: int, at: float, num_examples: int = 5) -> list[tuple[str, float, int]]:
    return report_rows(coordinator.report_many(ids, [num_examples] * len(ids), [at] * len(ids)))


def check_in_rows(answers: CheckIns) -> list[tuple[int, str, float | None, int, int]]:
    retry = [None if math.isnan(at) else at for at in answers.retry_at_s.tolist()]
    codes = [CheckInCode(code).name for code in answers.code.tolist()]
    others = (answers.round.tolist(), answers.model_version.tolist())
    return list(zip(answers.assignment_id.tolist(), codes, retry, *others, strict=True))


def report_rows(answers: Reports) -> list[tuple[str, float, int]]:
    codes = [ReportCode(code).name for code in answers.code.tolist()]
    return list(zip(codes, answers.weight.tolist(), answers.staleness.tolist(), strict=True))


def closing_row(closing: RoundClosed) -> dict[str, Any]:
    row = {field.name: getattr(closing, field.name) for field in dataclasses.fields(closing)}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in row.items()}


def frozen(coordinator: Coordinator) -> dict[str, tuple[str, list[Any]]]:
    return {name: (array.dtype.str, array.tolist()) for name, array in coordinator.state().items()}


def reloaded(coordinator: Coordinator, plan: RoundPlan) -> Coordinator:
    """The coordinator after a trip through a checkpoint file."""
    file = io.BytesIO()
    np.savez(file, **coordinator.state())
    file.seek(0)
    with np.load(file, allow_pickle=False) as state:
        return Coordinator.restore(plan, dict(state), selection=Highest())


# --- the plan


def test_plan_numbers() -> None:
    plan = RoundPlan(cohort=10)
    assert (plan.selected, plan.minimum) == (13, 6)
    # As floats 100 * 1.1 = 110.00000000000001 and 100 * 0.07 = 7.000000000000001.
    plan = RoundPlan(cohort=100, over_selection=1.1, minimum_ratio=0.07)
    assert (plan.selected, plan.minimum) == (110, 7)
    # 3 * 1.3 = 3.9 and 3 * 0.6 = 1.8, rounded up; never fewer than one report.
    assert (PLAN.selected, PLAN.minimum) == (4, 2)
    assert RoundPlan(cohort=3, minimum_ratio=0.0).minimum == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cohort": 0}, "cohort must be an integer, 1 or more, got 0"),
        ({"cohort": 2.0}, "cohort must be an integer, 1 or more, got 2.0"),
        ({"over_selection": 0.99}, "over_selection must be 1 or more"),
        ({"over_selection": math.nan}, "over_selection must be 1 or more"),
        ({"over_selection": math.inf}, "over_selection must be 1 or more"),
        ({"minimum_ratio": -0.1}, "minimum_ratio must be 0..1"),
        ({"minimum_ratio": 1.1}, "minimum_ratio must be 0..1"),
        ({"deadline_s": 0.0}, "deadline_s must be more than 0"),
        ({"deadline_s": math.inf}, "deadline_s must be more than 0"),
        ({"interval_s": -1.0}, r"interval_s must be 0 seconds or more \(and finite\), got -1\.0"),
        ({"interval_s": math.nan}, "interval_s must be 0 seconds or more"),
        ({"interval_s": math.inf}, "interval_s must be 0 seconds or more"),
        ({"pace_s": -1.0}, r"pace_s must be 0 seconds or more \(and finite\), got -1\.0"),
        ({"selection_window_s": math.nan}, "selection_window_s must be 0 seconds or more"),
        ({"population_cap": 1}, r"population_cap must be 0 \(none\) or an integer, the cohort \(2\) or more, got 1"),
        ({"population_cap": 2.0}, "population_cap must be 0"),
        ({"max_participations": -1}, r"max_participations must be 0 \(any number\) or an integer above it, got -1"),
    ],
)
def test_wrong_plans_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RoundPlan(**{"cohort": 2, **change})


def test_a_plan_must_fit_its_population() -> None:
    with pytest.raises(ValueError, match=r"plan.cohort must be 1\.\.2 \(the population\), got 3"):
        make(population=2)
    with pytest.raises(ValueError, match="model_version must be 0 or more, got -1"):
        make(model_version=-1)


# --- the rules, one by one


def test_a_round_counts_closings_and_a_model_version_only_successes() -> None:  # rule 1
    coordinator = make(model_version=7)
    assert (coordinator.round, coordinator.model_version) == (0, 7)
    check_in(coordinator, 0, at=0.0)
    coordinator.advance(10.0)
    assert (coordinator.round, coordinator.model_version) == (1, 7)
    check_in(coordinator, 0, 1, 2, at=11.0)
    report(coordinator, 1, 2, 3, at=12.0)
    assert (coordinator.round, coordinator.model_version) == (2, 8)


def test_check_ins_fill_the_round_in_order() -> None:  # rule 2
    coordinator = make()
    assert coordinator.open_slots == 4
    assert check_in(coordinator, 5, 3, 1, 0, 2, at=1.0) == [
        (0, "ASSIGNED", None, 0, 0),
        (1, "ASSIGNED", None, 0, 0),
        (2, "ASSIGNED", None, 0, 0),
        (3, "ASSIGNED", None, 0, 0),
        (-1, "ROUND_FULL", 11.0, 0, 0),
    ]
    assert coordinator.open_slots == 0
    # An accepted report keeps its slot taken.
    report(coordinator, 0, at=2.0)
    assert check_in(coordinator, 2, at=2.0) == [(-1, "ROUND_FULL", 11.0, 0, 0)]


def test_the_deadline_counts_from_the_first_assignment() -> None:  # rule 3
    coordinator = make()
    assert coordinator.next_deadline_s() == math.inf
    assert coordinator.advance(1000.0) == ()
    check_in(coordinator, 0, at=1001.0)
    check_in(coordinator, 1, at=1002.0)
    assert coordinator.next_deadline_s() == 1011.0
    # Its first assignment is withdrawn; the deadline stays.
    check_in(coordinator, 0, at=1003.0)
    assert coordinator.next_deadline_s() == 1011.0


def test_a_device_that_reported_waits_for_the_next_round() -> None:  # rule 4
    coordinator = make()
    check_in(coordinator, 0, at=0.0)
    report(coordinator, 0, at=1.0)
    assert check_in(coordinator, 0, 1, 2, 3, at=2.0)[0] == (-1, "ALREADY_REPORTED", 10.0, 0, 0)
    assert coordinator.open_slots == 0
    # Also in a full round.
    assert check_in(coordinator, 0, at=3.0) == [(-1, "ALREADY_REPORTED", 10.0, 0, 0)]
    assert check_in(coordinator, 0, at=10.0) == [(4, "ASSIGNED", None, 1, 0)]


def test_a_restarted_device_gives_its_slot_up_and_gets_it_back() -> None:  # rule 5
    coordinator = make()
    check_in(coordinator, 0, 1, 2, 3, at=0.0)
    assert check_in(coordinator, 4, 1, 5, at=1.0) == [
        (-1, "ROUND_FULL", 10.0, 0, 0),
        (4, "ASSIGNED", None, 0, 0),
        (-1, "ROUND_FULL", 10.0, 0, 0),
    ]
    assert report(coordinator, 1, 4, at=2.0) == [("WITHDRAWN", 0.0, 0), ("ACCEPTED", 5.0, 0)]
    (closing,) = coordinator.advance(10.0)
    assert (closing.assigned, closing.withdrawn) == (5, 1)


def test_a_device_twice_in_one_batch_restarted() -> None:  # rules 5 and 10
    coordinator = make()
    assert [row[0] for row in check_in(coordinator, 0, 0, 1, 0, at=0.0)] == [0, 1, 2, 3]
    assert [row[0] for row in report(coordinator, 0, 1, 2, 3, at=0.0)] == [
        "WITHDRAWN",
        "WITHDRAWN",
        "ACCEPTED",
        "ACCEPTED",
    ]


def test_a_report_at_the_deadline_is_too_late() -> None:  # rule 6
    coordinator = make()
    check_in(coordinator, 0, 1, 2, at=0.0)
    before = math.nextafter(10.0, 0.0)
    answers = coordinator.report_many([0, 1], [5, 5], [before, 10.0])
    assert report_rows(answers) == [("ACCEPTED", 5.0, 0), ("DEADLINE_PASSED", 0.0, 0)]
    # A check-in at the deadline meets the next round.
    assert check_in(coordinator, 3, at=10.0) == [(3, "ASSIGNED", None, 1, 0)]


def test_a_deadline_closes_at_its_own_time() -> None:  # rule 6
    coordinator = make()
    check_in(coordinator, 0, at=0.0)
    assert coordinator.advance(math.nextafter(10.0, 0.0)) == ()
    assert [closing.time_s for closing in coordinator.advance(coordinator.next_deadline_s())] == [10.0]
    check_in(coordinator, 0, at=20.0)
    assert [closing.time_s for closing in coordinator.advance(500.0)] == [30.0]
    assert (coordinator.now_s, coordinator.next_deadline_s()) == (500.0, math.inf)


def test_enough_reports_close_the_round_at_once() -> None:  # rule 7
    coordinator = make()
    check_in(coordinator, 5, 3, 4, 0, at=0.0)
    answers = coordinator.report_many([0, 1, 2, 3], [7, 8, 9, 6], [1.0, 2.0, 3.0, 4.0])
    assert report_rows(answers) == [
        ("ACCEPTED", 7.0, 0),
        ("ACCEPTED", 8.0, 0),
        ("ACCEPTED", 9.0, 0),
        ("LATE", 0.0, 1),
    ]
    (closing,) = coordinator.advance(4.0)
    assert closing_row(closing) == {
        "round": 0,
        "model_version": 0,
        "time_s": 3.0,
        "opened_s": 0.0,
        "succeeded": True,
        "reason": "cohort",
        "assignment_id": [1, 2, 0],
        "device": [3, 4, 5],
        "num_examples": [8, 9, 7],
        "assigned": 4,
        "withdrawn": 0,
    }
    assert coordinator.advance(4.0) == ()


@pytest.mark.parametrize(("reports", "succeeded"), [(0, False), (1, False), (2, True)])
def test_a_deadline_needs_the_minimum(reports: int, succeeded: bool) -> None:  # rule 7
    coordinator = make()
    check_in(coordinator, 0, 1, 2, at=0.0)
    report(coordinator, *range(reports), at=1.0)
    (closing,) = coordinator.advance(12.0)
    assert (closing.succeeded, closing.reason) == (succeeded, "deadline")
    assert closing.device.tolist() == list(range(reports))
    assert coordinator.model_version == int(succeeded)


def test_reports_that_do_not_count() -> None:  # rule 8
    coordinator = make()
    check_in(coordinator, 0, 1, 2, 3, at=0.0)
    assert report(coordinator, 0, 0, -1, 4, at=1.0) == [
        ("ACCEPTED", 5.0, 0),
        ("REPEATED", 0.0, 0),
        ("UNKNOWN", 0.0, -1),
        ("UNKNOWN", 0.0, -1),
    ]
    # The round closes within the batch: an accepted assignment stays so, the one left over is late.
    assert report(coordinator, 1, 2, 2, 3, 3, 0, at=2.0) == [
        ("ACCEPTED", 5.0, 0),
        ("ACCEPTED", 5.0, 0),
        ("REPEATED", 0.0, 1),
        ("LATE", 0.0, 1),
        ("LATE", 0.0, 1),
        ("REPEATED", 0.0, 1),
    ]
    # The next round is closed by its deadline, with two reports.
    check_in(coordinator, 0, 1, 2, at=3.0)
    report(coordinator, 4, 5, at=4.0)
    assert report(coordinator, 4, 6, 3, at=13.0) == [
        ("REPEATED", 0.0, 1),
        ("DEADLINE_PASSED", 0.0, 1),
        ("LATE", 0.0, 2),
    ]


def test_ids_are_unknown_before_the_first_assignment() -> None:  # rule 8
    for coordinator in (make(), reloaded(make(), PLAN)):
        answers = coordinator.report_many(np.array([0, 2**64 - 1], np.uint64), [1, 1], [0.0, 0.0])
        assert report_rows(answers) == [("UNKNOWN", 0.0, -1)] * 2


def test_reports_may_be_earlier_than_check_ins_but_not_complete_a_cohort_before_one() -> None:  # rule 10
    coordinator = make()
    check_in(coordinator, 0, 1, at=0.0)
    check_in(coordinator, 2, 3, at=5.0)
    assert report(coordinator, 0, 1, at=3.0) == [("ACCEPTED", 5.0, 0)] * 2
    assert (coordinator.now_s, coordinator.next_deadline_s()) == (5.0, 10.0)
    before = coordinator.state()
    with pytest.raises(
        ValueError, match=r"the cohort is complete at 4\.0, before a check-in that was answered, at 5\.0"
    ):
        report(coordinator, 2, at=4.0)
    with pytest.raises(ValueError, match=r"never decrease \(now 3\.0\), got 2\.9"):
        report(coordinator, 2, at=2.9)
    for name, column in coordinator.state().items():
        np.testing.assert_array_equal(column, before[name], err_msg=name)
    # At the time of the latest check-in and after it is fine; a closing is the end of what came before.
    assert report(coordinator, 2, at=5.0) == [("ACCEPTED", 5.0, 0)]
    with pytest.raises(ValueError, match=r"never decrease \(now 5\.0\), got 4\.0"):
        report(coordinator, 3, at=4.0)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.0, 12.0), st.floats(0.5, 9.0)), min_size=1, max_size=12),
    st.integers(1, 4),
    st.sampled_from([1.0, 1.5, 3.0]),
)
def test_a_round_settled_at_once_is_answered_as_one_in_order_of_time(
    lives: list[tuple[float, float]], cohort: int, over_selection: float
) -> None:  # rule 10
    plan = RoundPlan(cohort=min(cohort, len(lives)), over_selection=over_selection, deadline_s=10.0)
    lives = sorted(lives)
    oracle = PlainCoordinator(plan)
    # In order of time: each device checks in, and reports so much later if it was assigned.
    pending: list[tuple[float, int, int]] = [(start_s, 0, device) for device, (start_s, _) in enumerate(lives)]
    told: dict[int, Any] = {}
    reported: list[tuple[float, int, Any]] = []
    while pending and not oracle.closings:
        time_s, kind, number = pending.pop(0)
        oracle.advance(time_s)
        if oracle.closings:
            break
        if kind == 0:
            told[number] = oracle.check_in(number, time_s)
            if told[number][0] >= 0:
                pending = sorted([*pending, (time_s + lives[number][1], 1, told[number][0])])
        else:
            reported.append((time_s, number, oracle.report(number, 5, time_s)))
    # All check-ins in one call, then all reports in another.
    coordinator = Coordinator(plan, population=len(lives))
    came = coordinator.check_in_many(list(told), [lives[device][0] for device in told])
    assert check_in_rows(came) == [told[device] for device in told]
    answers = coordinator.report_many(
        [number for _, number, _ in reported], [5] * len(reported), [time_s for time_s, _, _ in reported]
    )
    assert report_rows(answers) == [answer for _, _, answer in reported]
    if oracle.closings:
        (closing,) = coordinator.advance(coordinator.next_deadline_s() if coordinator.round == 0 else coordinator.now_s)
        assert closing_row(closing) == oracle.closings[0]


def test_a_taken_closing_is_read_only_and_never_changes() -> None:  # rule 9
    coordinator = make()
    check_in(coordinator, 0, 1, 2, 3, at=0.0)
    report(coordinator, 0, 1, 2, at=1.0)
    (closing,) = coordinator.advance(1.0)
    before = closing_row(closing)
    report(coordinator, 0, 3, at=2.0, num_examples=99)
    check_in(coordinator, *range(6), at=3.0)
    assert closing_row(closing) == before
    for column in (closing.assignment_id, closing.device, closing.num_examples):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 9


def test_a_straggler_joins_the_open_round_beside_its_old_assignment() -> None:  # rule 11
    coordinator = make()
    check_in(coordinator, 0, 1, 2, 3, at=0.0)
    report(coordinator, 0, 1, 2, at=1.0)
    assert check_in(coordinator, 3, at=2.0) == [(4, "ASSIGNED", None, 1, 1)]
    assert report(coordinator, 3, 4, at=3.0) == [("LATE", 0.0, 1), ("ACCEPTED", 5.0, 0)]
    assert coordinator.open_slots == 3


def test_rounds_on_a_schedule_start_an_interval_apart() -> None:  # rule 12
    coordinator = make(SCHEDULED)
    # The first round opens at 0, whenever its first device comes.
    assert coordinator.opens_s == 0.0
    check_in(coordinator, 0, 1, 2, 3, at=1.0)
    assert coordinator.opens_s == 0.0
    report(coordinator, 0, 1, 2, at=4.0)
    # 30 seconds after the first assignment at 1, not after the closing at 4.
    assert (coordinator.opens_s, coordinator.open_slots, coordinator.next_deadline_s()) == (31.0, 4, math.inf)
    before = math.nextafter(31.0, 0.0)
    assert check_in(coordinator, 0, at=4.0) == [(-1, "NOT_YET", 31.0, 1, 1)]
    assert check_in(coordinator, 4, 4, at=before) == [(-1, "NOT_YET", 31.0, 1, 1)] * 2
    assert coordinator.next_deadline_s() == math.inf
    assert check_in(coordinator, 0, at=31.0) == [(4, "ASSIGNED", None, 1, 1)]
    assert (coordinator.opens_s, coordinator.next_deadline_s()) == (31.0, 41.0)


def test_a_round_that_starts_late_moves_the_schedule() -> None:  # rule 12
    coordinator = make(SCHEDULED)
    check_in(coordinator, 0, at=1.0)
    # Round 0 is closed by its deadline, 1 + 10; round 1 may start at 1 + 30, but nobody comes until 95.
    assert check_in(coordinator, 0, at=11.0) == [(-1, "NOT_YET", 31.0, 1, 0)]
    assert check_in(coordinator, 0, at=95.0) == [(1, "ASSIGNED", None, 1, 0)]
    assert check_in(coordinator, 0, at=105.0) == [(-1, "NOT_YET", 125.0, 2, 0)]
    assert [closing.opened_s for closing in coordinator.advance(105.0)] == [1.0, 95.0]


@pytest.mark.parametrize(("interval_s", "opens_s"), [(0.0, 11.0), (9.0, 11.0), (10.0, 11.0), (10.5, 11.5)])
def test_a_round_opens_no_earlier_than_the_last_one_closed(interval_s: float, opens_s: float) -> None:  # rule 12
    coordinator = make(dataclasses.replace(PLAN, interval_s=interval_s))
    check_in(coordinator, 0, at=1.0)
    # A deadline closes at 1 + 10 however late the driver says so: so does the next round open.
    coordinator.advance(11.25)
    assert coordinator.opens_s == opens_s
    expected = (1, "ASSIGNED", None, 1, 0) if opens_s <= 11.25 else (-1, "NOT_YET", opens_s, 1, 0)
    assert check_in(coordinator, 0, at=11.25) == [expected]


def test_one_batch_of_check_ins_passes_a_deadline_and_an_opening() -> None:  # rules 10 and 12
    coordinator = make(SCHEDULED)
    answers = coordinator.check_in_many([0, 1, 0, 0, 2, 2, 0, 0], [0.0, 9.0, 10.0, 29.0, 29.0, 30.0, 30.0, 40.0])
    assert check_in_rows(answers) == [
        (0, "ASSIGNED", None, 0, 0),
        (1, "ASSIGNED", None, 0, 0),
        (-1, "NOT_YET", 30.0, 1, 0),
        (-1, "NOT_YET", 30.0, 1, 0),
        (-1, "NOT_YET", 30.0, 1, 0),
        (2, "ASSIGNED", None, 1, 0),
        (3, "ASSIGNED", None, 1, 0),
        # Round 1 waited from 30 to 40; round 2 opens at 30 + 30.
        (-1, "NOT_YET", 60.0, 2, 0),
    ]


def test_reports_are_answered_before_the_opening_time() -> None:  # rule 12
    coordinator = make(SCHEDULED)
    check_in(coordinator, 0, 1, 2, 3, at=0.0)
    assert report(coordinator, 0, 1, 2, 3, 0, 4, at=1.0) == [
        ("ACCEPTED", 5.0, 0),
        ("ACCEPTED", 5.0, 0),
        ("ACCEPTED", 5.0, 0),
        ("LATE", 0.0, 1),
        ("REPEATED", 0.0, 1),
        ("UNKNOWN", 0.0, -1),
    ]
    assert (coordinator.opens_s, coordinator.next_deadline_s()) == (30.0, math.inf)


def test_a_window_holds_devices_and_chooses_at_its_end() -> None:  # rule 13
    coordinator = make(WINDOWED)
    assert check_in(coordinator, 0, 1, 1, at=2.0) == [(-1, "HELD", 7.0, 0, 0)] * 3
    assert (coordinator.window_ends_s, coordinator.next_deadline_s()) == (7.0, math.inf)
    assert check_in(coordinator, 2, 3, 4, 5, at=6.0) == [(-1, "HELD", 7.0, 0, 0)] * 4
    # 5 leaves at the very end, which is in time: the four highest of the others are 1 to 4.
    coordinator.leave_many([5], [7.0])
    assert check_in(coordinator, 5, 0, 1, 3, at=7.0) == [
        (-1, "ROUND_FULL", 17.0, 0, 0),
        (-1, "ROUND_FULL", 17.0, 0, 0),
        (0, "ASSIGNED", None, 0, 0),
        (1, "ASSIGNED", None, 0, 0),
    ]
    # 2 does not want what is reserved for it any more, and who comes first gets it; 4 comes late for its own.
    coordinator.leave_many([2], [8.0])
    assert check_in(coordinator, 0, 5, 4, at=8.0) == [
        (2, "ASSIGNED", None, 0, 0),
        (-1, "ROUND_FULL", 17.0, 0, 0),
        (3, "ASSIGNED", None, 0, 0),
    ]
    # The deadline counts from the window's end.
    (closing,) = coordinator.advance(17.0)
    assert (closing.opened_s, closing.time_s, closing.assigned) == (7.0, 17.0, 4)


def test_a_window_that_ends_with_too_few_takes_all_and_then_who_comes_first() -> None:  # rule 13
    coordinator = make(WINDOWED)
    check_in(coordinator, 3, at=0.0)
    assert [row[1] for row in check_in(coordinator, 0, 1, 2, 4, 3, at=5.0)] == [
        *["ASSIGNED"] * 3,
        "ROUND_FULL",
        "ASSIGNED",
    ]


def test_a_window_that_everybody_left_begins_anew() -> None:  # rule 13
    coordinator = make(WINDOWED)
    check_in(coordinator, 3, at=0.0)
    coordinator.leave_many([3], [4.0])
    assert check_in(coordinator, 2, at=9.0) == [(-1, "HELD", 14.0, 0, 0)]
    # Nobody comes for the assignment that is reserved: the round ends all the same.
    (closing,) = coordinator.advance(24.0)
    assert (closing.opened_s, closing.time_s, closing.assigned, closing.succeeded) == (14.0, 24.0, 0, False)


def test_a_full_population_admits_nobody_else() -> None:  # rule 14
    coordinator = make(dataclasses.replace(SCHEDULED, population_cap=3))
    assert [row[1:3] for row in check_in(coordinator, 0, 5, 2, 1, 5, at=0.0)] == [
        ("ASSIGNED", None),
        ("ASSIGNED", None),
        ("ASSIGNED", None),
        ("POPULATION_FULL", math.inf),
        ("ASSIGNED", None),
    ]
    coordinator.advance(10.0)
    # Before the opening time nobody is admitted or refused; a refused device begins no round.
    assert [row[1] for row in check_in(coordinator, 3, 0, at=11.0)] == ["NOT_YET"] * 2
    assert check_in(coordinator, 3, at=31.0) == [(-1, "POPULATION_FULL", math.inf, 1, 0)]
    assert coordinator.next_deadline_s() == math.inf
    assert [row[1] for row in check_in(coordinator, 4, 0, at=32.0)] == ["POPULATION_FULL", "ASSIGNED"]
    assert coordinator.next_deadline_s() == 42.0


def test_a_device_is_in_so_many_models_and_no_more() -> None:  # rule 15
    plan = RoundPlan(cohort=2, over_selection=1.0, minimum_ratio=1.0, deadline_s=10.0, max_participations=1)
    coordinator = make(plan)
    check_in(coordinator, 0, 1, at=0.0)
    coordinator.report_many([0], [3], [1.0])
    # An abandoned round is in no model.
    (abandoned,) = coordinator.advance(10.0)
    assert (abandoned.succeeded, abandoned.device.tolist()) == (False, [0])
    check_in(coordinator, 0, 1, at=11.0)
    coordinator.report_many([2, 3], [3, 3], [12.0, 12.0])
    assert check_in(coordinator, 1, at=12.0) == [(-1, "PRIVACY_SPENT", math.inf, 2, 1)]
    # Who is turned away begins no round, and takes no slot.
    assert coordinator.next_deadline_s() == math.inf
    restored = reloaded(coordinator, plan)
    for one in (coordinator, restored):
        assert [row[1] for row in check_in(one, 0, 2, 1, 3, 0, at=13.0)] == [
            "PRIVACY_SPENT",
            "ASSIGNED",
            "PRIVACY_SPENT",
            "ASSIGNED",
            "PRIVACY_SPENT",
        ]
        assert one.next_deadline_s() == 23.0
        # Four of six are left; once two more are in a model there are two, and then none for a round of two.
        one.report_many([4, 5], [3, 3], [14.0, 14.0])
        assert (one.admission.num_spent, one.exhausted) == (4, False)
        check_in(one, 4, 5, at=15.0)
        one.report_many([6, 7], [3, 3], [16.0, 16.0])
        assert (one.admission.num_spent, one.exhausted) == (6, True)


def test_a_window_needs_a_selection() -> None:
    with pytest.raises(ValueError, match=r"selection_window_s is 5\.0, which needs a selection"):
        Coordinator(WINDOWED, population=POPULATION)


# --- wrong input changes nothing


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.check_in_many([0, 6], [5.0, 5.0]), r"device must be 0\.\.5, got 6 at index 1"),
        (lambda c: c.check_in_many([0, -1], [5.0, 5.0]), r"device must be 0\.\.5, got -1 at index 1"),
        (lambda c: c.check_in_many([0.0, 1.0], [5.0, 5.0]), "device must be integers, got float64"),
        (lambda c: c.check_in_many([0, 1], [5.0]), r"device must have the shape of now_s, \(1,\), got \(2,\)"),
        (lambda c: c.check_in_many([[0]], [[5.0]]), r"now_s must be one column \[n\], got shape \(1, 1\)"),
        (lambda c: c.check_in_many([0, 1], [99.0, 98.0]), r"never decrease \(now 2.0\), got 98.0 at index 1"),
        (lambda c: c.check_in_many([0], [1.9]), r"never decrease \(now 2.0\), got 1.9 at index 0"),
        (lambda c: c.check_in_many([0, 1], [99.0, math.nan]), "must be finite .* got nan at index 1"),
        (lambda c: c.check_in_many([0, 1], [99.0, math.inf]), "must be finite .* got inf at index 1"),
        (lambda c: c.leave_many([0, 6], [5.0, 5.0]), r"device must be 0\.\.5, got 6 at index 1"),
        (lambda c: c.leave_many([0, 1], [99.0, 98.0]), "never decrease"),
        (lambda c: c.report_many([1, 2], [5, 0], [99.0, 99.0]), "num_examples must be 1 or more, got 0 at index 1"),
        (lambda c: c.report_many([1, 2], [5], [99.0, 99.0]), "num_examples must have the shape of now_s"),
        (lambda c: c.report_many([1], [5, 5], [99.0, 99.0]), "assignment_id must have the shape of now_s"),
        (lambda c: c.report_many([1.5], [5], [99.0]), "assignment_id must be integers"),
        (lambda c: c.report_many([1], [5.5], [99.0]), "num_examples must be integers"),
        (lambda c: c.report_many([1, 2], [5, 5], [99.0, 98.0]), "never decrease"),
        (lambda c: c.advance(1.9), "never decrease"),
        (lambda c: c.advance(math.inf), "must be finite"),
        (lambda c: c.advance(math.nan), "must be finite"),
    ],
)
def test_wrong_input_is_refused_and_changes_nothing(call: Callable[[Coordinator], object], message: str) -> None:
    coordinator = make()
    check_in(coordinator, 0, 1, 2, at=0.0)
    report(coordinator, 0, at=2.0)
    before = frozen(coordinator)
    with pytest.raises(ValueError, match=message):
        call(coordinator)
    assert frozen(coordinator) == before


def test_empty_batches_answer_nothing_and_change_nothing() -> None:
    coordinator = make()
    before = frozen(coordinator)
    assert check_in_rows(coordinator.check_in_many([], [])) == []
    assert report_rows(coordinator.report_many([], [], [])) == []
    assert frozen(coordinator) == before


def test_the_callers_arrays_are_left_alone() -> None:
    coordinator = make()
    devices, times = np.array([0, 0, 1]), np.array([0.0, 1.0, 20.0])
    devices.flags.writeable = times.flags.writeable = False
    ids = coordinator.check_in_many(devices, times).assignment_id
    ids[:] = 77
    assert report(coordinator, 2, at=20.0) == [("ACCEPTED", 5.0, 0)]


# --- checkpoints


def test_a_state_is_a_copy_and_holds_no_objects() -> None:
    coordinator = make()
    check_in(coordinator, 0, 1, at=0.0)
    state = coordinator.state()
    assert all(isinstance(array, np.ndarray) and not array.dtype.hasobject for array in state.values())
    check_in(coordinator, 0, 2, at=1.0)
    restored = Coordinator.restore(PLAN, state)
    check_in(restored, 5, 4, 3, at=1.0)
    assert check_in(Coordinator.restore(PLAN, state), 0, 2, at=1.0) == [
        (2, "ASSIGNED", None, 0, 0),
        (3, "ASSIGNED", None, 0, 0),
    ]


def test_a_state_remembers_when_the_open_round_opens() -> None:
    coordinator = make(SCHEDULED)
    check_in(coordinator, 0, at=1.0)
    coordinator.advance(11.0)
    restored = reloaded(coordinator, SCHEDULED)
    assert restored.opens_s == 31.0
    assert check_in(restored, 0, at=12.0) == [(-1, "NOT_YET", 31.0, 1, 0)]


@pytest.mark.parametrize(
    "change",
    [
        {"deadline_s": 11.0},
        {"interval_s": 1.0},
        {"selection_window_s": 1.0},
        {"population_cap": 9},
        {"max_participations": 1},
    ],
)
def test_a_state_belongs_to_its_plan(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="saved under another plan"):
        Coordinator.restore(dataclasses.replace(PLAN, **change), make().state())


# --- any order, any batching


@dataclasses.dataclass(frozen=True)
class Element:
    """One thing that happens; ``pick`` is a device, or how far back the assignment to report lies."""

    pick: int
    num_examples: int
    wait: float | str  # before it happens; a mark is the open round's deadline, or before that its opening


@dataclasses.dataclass(frozen=True)
class Batch:
    kind: str
    elements: list[Element]
    restart: bool  # the coordinator is saved and restored before this batch


ELEMENTS = st.builds(
    Element,
    pick=st.integers(-1, 9),
    num_examples=st.integers(1, 9),
    # Mostly none, so that rounds fill before their deadline.
    wait=st.sampled_from([0.0] * 50 + [0.05] * 6 + [12.0] + ["to_mark", "to_just_before"] * 2),
)
BATCHES = st.lists(
    st.builds(
        Batch,
        kind=st.sampled_from(["check_in", "check_in", "check_in", "report", "report", "report", "advance", "leave"]),
        elements=st.lists(ELEMENTS, min_size=1, max_size=16),
        restart=st.sampled_from([False, False, True]),
    ),
    min_size=4,
    max_size=20,
)
PLANS = st.builds(
    RoundPlan,
    cohort=st.integers(1, 4),
    over_selection=st.sampled_from([1.0, 1.3, 2.0]),
    minimum_ratio=st.sampled_from([0.0, 0.5, 1.0]),
    # 0.1 and 0.7 have no exact binary form; 1e-17 is lost in rounding beside a time of 1 or more.
    deadline_s=st.sampled_from([10.0] * 6 + [0.7, 0.1, 1e-17]),
    # Shorter than, equal to and longer than the deadlines.
    interval_s=st.sampled_from([0.0] * 4 + [1e-17, 0.1, 0.3, 10.0, 13.0]),
    selection_window_s=st.sampled_from([0.0] * 4 + [0.05, 0.1, 5.0, 12.0]),
    population_cap=st.sampled_from([0] * 4 + [4, 5]),
    max_participations=st.sampled_from([0] * 3 + [1, 2]),
)


@dataclasses.dataclass
class Played:
    """A batch with its numbers fixed, and what the oracle said: its answers, and how it stood afterwards."""

    batch: Batch
    numbers: list[int]
    times: list[float]
    answers: list[Any]
    stand: tuple[Any, ...]


def play(oracle: PlainCoordinator, batches: list[Batch]) -> Iterator[Played]:
    now_s = 0.0
    for batch in batches:
        played = Played(batch, [], [], [], ())
        for element in batch.elements:
            mark_s = oracle.opens_s() if oracle.open.opened_s is None else oracle.deadline_s()
            mark_s = mark_s if oracle.open.window_ends_s is None else oracle.open.window_ends_s
            now_s = after_wait(element.wait, now_s=now_s, mark_s=mark_s)
            newest = len(oracle.assignments) - 1
            number = element.pick % POPULATION if batch.kind in ("check_in", "leave") else newest - element.pick
            played.numbers.append(number)
            played.times.append(now_s)
            if batch.kind == "check_in":
                played.answers.append(oracle.check_in(number, now_s))
            elif batch.kind == "report":
                played.answers.append(oracle.report(number, element.num_examples, now_s))
            elif batch.kind == "leave":
                oracle.leave(number, now_s)
            else:
                oracle.advance(now_s)
                played.answers.append(list(oracle.closings))
        window_ends_s = math.inf if oracle.open.window_ends_s is None else oracle.open.window_ends_s
        times = (oracle.opens_s(), oracle.deadline_s(), window_ends_s, now_s)
        spent = oracle.exhausted(POPULATION)
        played.stand = (oracle.open.index, oracle.open.model_version, oracle.slots(), spent, *times)
        yield played


def after_wait(wait: float | str, *, now_s: float, mark_s: float) -> float:
    if isinstance(wait, float):
        return now_s + wait
    return max(now_s, mark_s if wait == "to_mark" else math.nextafter(mark_s, 0.0))


def run(coordinator: Coordinator, played: Played, closings: list[dict[str, Any]]) -> list[Any]:
    """The coordinator's answers to a batch; ``advance`` answers with all closings so far."""
    if played.batch.kind == "check_in":
        return check_in_rows(coordinator.check_in_many(played.numbers, played.times))
    if played.batch.kind == "report":
        examples = [element.num_examples for element in played.batch.elements]
        return report_rows(coordinator.report_many(played.numbers, examples, played.times))
    answers: list[Any] = []
    if played.batch.kind == "leave":
        coordinator.leave_many(played.numbers, played.times)
        return answers
    for now_s in played.times:
        closings += [closing_row(closing) for closing in coordinator.advance(now_s)]
        answers.append(list(closings))
    return answers


def end_of(coordinator: Coordinator, plan: RoundPlan) -> float:
    """When the open round is closed for certain, if it has begun."""
    deadline_s = min(coordinator.next_deadline_s(), coordinator.window_ends_s + plan.deadline_s)
    return coordinator.now_s if deadline_s == math.inf else max(coordinator.now_s, deadline_s)


def standing(coordinator: Coordinator) -> tuple[Any, ...]:
    return (
        coordinator.round,
        coordinator.model_version,
        coordinator.open_slots,
        coordinator.exhausted,
        coordinator.opens_s,
        coordinator.next_deadline_s(),
        coordinator.window_ends_s,
        coordinator.now_s,
    )


@settings(deadline=None, max_examples=300)
@given(plan=PLANS, batches=BATCHES)
def test_any_order_and_any_batching_equals_the_plain_coordinator(plan: RoundPlan, batches: list[Batch]) -> None:
    oracle = PlainCoordinator(plan, model_version=3, selection=Highest())
    coordinator = make(plan, model_version=3)
    closings: list[dict[str, Any]] = []
    for played in play(oracle, batches):
        if played.batch.restart:
            coordinator = reloaded(coordinator, plan)
        assert run(coordinator, played, closings) == played.answers
        assert standing(coordinator) == played.stand
        assert 0 <= coordinator.open_slots <= plan.selected
    end_s = end_of(coordinator, plan)
    oracle.advance(end_s)
    assert closings + [closing_row(closing) for closing in coordinator.advance(end_s)] == oracle.closings
    for closing in oracle.closings:
        event(f"closed by {closing['reason']}, {'succeeded' if closing['succeeded'] else 'abandoned'}")


@settings(deadline=None, max_examples=100)
@given(plan=PLANS, batches=BATCHES)
def test_nothing_is_counted_twice_and_nothing_is_lost(plan: RoundPlan, batches: list[Batch]) -> None:
    coordinator = make(plan)
    answers: dict[int, list[str]] = {}
    closings: list[dict[str, Any]] = []
    assigned = versions = 0
    for played in play(PlainCoordinator(plan, selection=Highest()), batches):
        rows = run(coordinator, played, closings)
        if played.batch.kind == "check_in":
            assigned += sum(row[1] == "ASSIGNED" for row in rows)
            for now_s, (_, code, retry_at_s, *_) in zip(played.times, rows, strict=True):
                assert code == "ASSIGNED" or retry_at_s > now_s
                event(f"check-in {code}")
        elif played.batch.kind == "report":
            for number, (code, *_) in zip(played.numbers, rows, strict=True):
                assert (code == "UNKNOWN") == (not 0 <= number < assigned)
                answers.setdefault(number, []).extend([code] * (code != "UNKNOWN"))
                event(f"report {code}")
    # Close the last round, then ask once more for every assignment there ever was.
    end_s = end_of(coordinator, plan)
    closings += [closing_row(closing) for closing in coordinator.advance(end_s)]
    final = [row[0] for row in report(coordinator, *range(assigned), at=end_s)]

    counted = sorted(number for closing in closings for number in closing["assignment_id"])
    assert counted == [number for number in range(assigned) if final[number] == "REPEATED"]
    assert counted == sorted(number for number in answers if "ACCEPTED" in answers[number])
    for number, codes in answers.items():
        assert codes.count("ACCEPTED") <= 1
        # An answer that did not count is the assignment's last word.
        assert all(code == final[number] for code in codes if code != "ACCEPTED")
    assert set(final) <= {"REPEATED", "LATE", "DEADLINE_PASSED", "WITHDRAWN"}
    assert final.count("WITHDRAWN") == sum(closing["withdrawn"] for closing in closings)
    assert assigned == sum(closing["assigned"] for closing in closings)
    for index, closing in enumerate(closings):
        reports = len(closing["device"])
        assert (closing["round"], closing["model_version"]) == (index, versions)
        assert closing["assigned"] - closing["withdrawn"] <= plan.selected
        assert closing["succeeded"] == (reports >= plan.minimum)
        assert (closing["reason"] == "cohort") == (reports == plan.cohort)
        assert closing["device"] == sorted(set(closing["device"]))
        versions += closing["succeeded"]
    for previous, closing in itertools.pairwise(closings):
        assert closing["opened_s"] >= max(previous["opened_s"] + plan.interval_s, previous["time_s"])
    assert coordinator.model_version == versions


# --- cost


def batched_rounds(rounds: int, size: int) -> int:
    coordinator = Coordinator(RoundPlan(cohort=size, over_selection=1.0), population=8 * size)
    counted = 0
    for index in range(rounds):
        devices = np.arange(size) * 7 % (8 * size)
        ids = coordinator.check_in_many(devices, np.full(size, float(index))).assignment_id
        coordinator.report_many(ids, np.full(size, 5), np.full(size, index + 0.5))
        counted += sum(closing.device.size for closing in coordinator.advance(index + 0.5))
    return counted


def plain_rounds(rounds: int, size: int) -> int:
    oracle = PlainCoordinator(RoundPlan(cohort=size, over_selection=1.0))
    for index in range(rounds):
        ids = [oracle.check_in(device * 7 % (8 * size), float(index))[0] for device in range(size)]
        for assignment_id in ids:
            oracle.report(assignment_id, 5, index + 0.5)
    return sum(len(closing["device"]) for closing in oracle.closings)


def cpu_seconds(work: Callable[[int, int], int], *, rounds: int, size: int) -> float:
    def once() -> float:
        start = time.process_time()
        assert work(rounds, size) == rounds * size
        return time.process_time() - start

    return min(once() for _ in range(5))


def test_a_batch_of_a_thousand_costs_a_fraction_of_a_thousand_objects() -> None:
    plain, batched = (cpu_seconds(work, rounds=50, size=1000) for work in (plain_rounds, batched_rounds))
    assert plain / batched >= 5


def test_a_batch_of_restarts_costs_linear_time() -> None:
    # The worst batch: one device, so that each element is a segment of its own.
    def restarts(rounds: int, size: int) -> int:
        coordinator = make()
        for _ in range(rounds):
            coordinator.check_in_many(np.zeros(size, int), np.zeros(size))
        return int(coordinator.state()["withdrawn"]) + 1

    small, large = (cpu_seconds(restarts, rounds=1, size=size) for size in (500, 4000))
    assert large / small < 8 * 3
