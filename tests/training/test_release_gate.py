"""The gate, worked out by hand, and what holds in any order of events."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.training.draws import draw_key, uniform
from pocketfleet.training.release_gate import Change, EvaluationCode, ReleaseGate
from pocketfleet.training.release_verdict import Measured, ReleasePlan, ReleaseState

PLAN = ReleasePlan(
    seed=3,
    evaluation_reports=2,
    canary_ratio=0.0,
    canary_reports=2,
    over_selection=1.5,
    minimum_ratio=0.5,
    report_within_s=10.0,
    deadline_s=100.0,
)
BETTER, WORSE = Measured(num_held_out=4, tried=0.5, released=1.0), Measured(num_held_out=4, tried=2.0, released=1.0)


def told(changes: list[Change]) -> list[tuple[int, str, str]]:
    return [(change.version, change.state.value, change.reason) for change in changes]


def asked(gate: ReleaseGate, device: int, now_s: float) -> int:
    evaluation = gate.ask(device, now_s)
    assert evaluation is not None
    return evaluation.number


def reported(gate: ReleaseGate, device: int, measured: Measured, now_s: float) -> list[tuple[int, str, str]]:
    code, changes = gate.report(asked(gate, device, now_s), measured, now_s)
    assert code is EvaluationCode.COUNTED
    return told(changes)


def test_a_better_version_is_released_and_a_worse_one_held_back() -> None:
    gate = ReleaseGate(PLAN)
    assert told(gate.made(1, 0.0)) == [(1, "candidate", "made")]
    assert (gate.released, gate.trial, gate.next_deadline_s()) == (0, (1, "candidate"), 100.0)
    assert reported(gate, 7, BETTER, 1.0) == []
    assert reported(gate, 8, BETTER, 2.0) == [(0, "retired", "newer"), (1, "released", "passed")]
    assert (gate.released, gate.trial, gate.next_deadline_s()) == (1, None, math.inf)
    gate.made(2, 3.0)
    reported(gate, 7, BETTER, 4.0)
    # (0.5 + 2.0) / 2 is more than 1.0.
    assert reported(gate, 8, WORSE, 5.0) == [(2, "held_back", "worse")]
    assert gate.released == 1


def test_a_passing_version_is_first_used_by_its_share() -> None:
    plan = replace(PLAN, canary_ratio=0.5)
    gate = ReleaseGate(plan)
    gate.made(1, 0.0)
    share = [device for device in range(20) if uniform(draw_key(3, "canary", 1, device), 1)[0] < 0.5]
    others = [device for device in range(20) if device not in share]
    assert len(share) > 3
    assert len(others) > 3
    assert [gate.version_for(device) for device in range(20)] == [0] * 20
    reported(gate, others[0], BETTER, 1.0)
    assert reported(gate, others[1], BETTER, 2.0) == [(1, "canary", "passed")]
    assert [device for device in range(20) if gate.version_for(device) == 1] == share
    assert gate.next_deadline_s() == 102.0
    assert gate.ask(others[2], 3.0) is None
    reported(gate, share[0], WORSE, 3.0)
    assert reported(gate, share[1], WORSE, 4.0) == [(1, "rolled_back", "worse")]
    assert {gate.version_for(device) for device in range(20)} == {0}
    gate.made(2, 5.0)
    for device in (0, 1):
        reported(gate, device, BETTER, 6.0)
    share = [device for device in range(20) if gate.in_share(2, device)]
    reported(gate, share[0], BETTER, 7.0)
    assert reported(gate, share[1], BETTER, 8.0) == [(0, "retired", "newer"), (2, "released", "passed")]


def test_versions_that_are_made_meanwhile_wait_and_the_newest_is_tried_next() -> None:
    gate = ReleaseGate(PLAN)
    gate.made(1, 0.0)
    assert told(gate.made(2, 1.0)) == [(2, "waiting", "made")]
    assert told(gate.made(3, 2.0)) == [(2, "superseded", "newer"), (3, "waiting", "made")]
    assert gate.made(3, 2.0) == []
    assert gate.versions_in_use() == {0, 1, 3}
    reported(gate, 1, WORSE, 3.0)
    assert reported(gate, 2, WORSE, 3.0) == [(1, "held_back", "worse"), (3, "candidate", "made")]
    assert gate.versions_in_use() == {0, 3}
    assert gate.next_deadline_s() == 103.0


def test_no_more_devices_are_asked_than_over_selection_allows() -> None:
    gate = ReleaseGate(PLAN)
    gate.made(1, 0.0)
    # 2 reports times 1.5.
    assert [asked(gate, device, 0.0) for device in (5, 6, 7)] == [0, 1, 2]
    assert not gate.wants(8, 9.9)
    assert gate.ask(8, 9.9) is None
    # The same again while it is at it; after 10 s its place is free, and what it reports still counts.
    assert asked(gate, 5, 9.9) == 0
    assert asked(gate, 8, 10.0) == 3
    assert gate.report(0, BETTER, 20.0)[0] is EvaluationCode.COUNTED
    assert gate.ask(5, 20.0) is None
    assert gate.report(0, WORSE, 21.0)[0] is EvaluationCode.REPEATED
    assert gate.report(9, BETTER, 21.0)[0] is EvaluationCode.UNKNOWN
    code, changes = gate.report(3, BETTER, 21.0)
    assert (code, told(changes)[-1]) == (EvaluationCode.COUNTED, (1, "released", "passed"))
    assert gate.report(1, BETTER, 22.0) == (EvaluationCode.OVER, [])


def test_the_deadline_judges_what_is_there_or_holds_back() -> None:
    gate = ReleaseGate(PLAN)
    gate.made(1, 0.0)
    reported(gate, 1, BETTER, 1.0)
    number = asked(gate, 2, 1.0)
    assert gate.advance(99.9) == []
    # Half of two is one.
    released = gate.advance(150.0)
    assert told(released)[-1] == (1, "released", "passed")
    assert released[-1].time_s == 100.0
    assert gate.report(number, BETTER, 150.0)[0] is EvaluationCode.OVER
    gate.made(2, 200.0)
    assert told(gate.made(3, 400.0)) == [(2, "held_back", "too_few"), (3, "candidate", "made")]
    # Version 2 was given up at 300 s, before version 3 was made.
    assert gate.next_deadline_s() == 500.0


def test_a_waiting_version_is_tried_when_the_deadline_was() -> None:
    gate = ReleaseGate(PLAN)
    gate.made(1, 0.0)
    gate.made(2, 50.0)
    changes = gate.advance(1000.0)
    assert told(changes) == [(1, "held_back", "too_few"), (2, "candidate", "made"), (2, "held_back", "too_few")]
    assert [change.time_s for change in changes] == [100.0, 100.0, 200.0]


def test_an_administrator_overrides_the_gate_until_the_choice_is_taken_back() -> None:
    gate = ReleaseGate(replace(PLAN, canary_ratio=1.0))
    gate.made(1, 0.0)
    for device in (1, 2):
        reported(gate, device, BETTER, 1.0)
    assert gate.version_for(1) == 1
    assert told(gate.choose(0, 2.0)) == [(1, "rolled_back", "administrator")]
    assert (gate.version_for(1), gate.chosen, gate.trial) == (0, True, None)
    assert told(gate.made(2, 3.0)) == [(2, "waiting", "made")]
    assert told(gate.choose(1, 4.0)) == [(0, "retired", "administrator"), (1, "released", "administrator")]
    assert told(gate.choose(0, 4.0)) == [(1, "rolled_back", "administrator"), (0, "released", "administrator")]
    assert told(gate.let_go(5.0)) == [(2, "candidate", "made")]
    assert gate.next_deadline_s() == 105.0
    gate.choose(2, 6.0)
    assert gate.let_go(7.0) == []
    assert (gate.released, gate.trial) == (2, None)


def test_time_does_not_fall() -> None:
    gate = ReleaseGate(PLAN)
    gate.made(1, 5.0)
    for call in (lambda: gate.made(2, 4.0), lambda: gate.ask(1, 4.0), lambda: gate.advance(4.0)):
        with pytest.raises(ValueError, match=r"time must not fall: it was 5.0 s, got 4.0 s"):
            call()
    assert gate.trial == (1, "candidate")


# In any order

MEASURED = st.builds(
    Measured,
    num_held_out=st.integers(1, 2**53),
    tried=st.floats(allow_nan=True, allow_infinity=True),
    released=st.floats(allow_nan=True, allow_infinity=True),
)


@given(st.data(), st.lists(MEASURED, min_size=1, max_size=12), st.booleans())
def test_the_verdict_does_not_depend_on_the_order_of_the_reports(
    data: st.DataObject, reports: list[Measured], lower_is_better: bool
) -> None:
    plan = replace(PLAN, evaluation_reports=len(reports), lower_is_better=lower_is_better)
    given_order = range(len(reports))
    found = []
    for order in (given_order, data.draw(st.permutations(given_order))):
        gate = ReleaseGate(plan)
        gate.made(1, 0.0)
        changes = []
        for device in order:
            changes += gate.report(asked(gate, device, 1.0), reports[device], 1.0)[1]
        found.append(changes)
    assert found[0] == found[1]
    assert found[0][-1].state in {ReleaseState.RELEASED, ReleaseState.HELD_BACK}


EVENT = st.one_of(
    st.tuples(st.just("made")),
    st.tuples(st.just("ask"), st.integers(0, 5)),
    st.tuples(st.just("report"), st.integers(0, 8), MEASURED | st.just(BETTER) | st.just(WORSE)),
    st.tuples(st.just("wait"), st.floats(0.0, 60.0)),
    st.tuples(st.just("choose"), st.integers(0, 9)),
    st.tuples(st.just("let_go")),
)


def happened(gate: ReleaseGate, event: tuple[Any, ...], now_s: float) -> tuple[Any, list[Change]]:
    """The answer and the changes."""
    if event[0] == "made":
        return None, gate.made(gate.newest + 1, now_s)
    if event[0] == "ask":
        return gate.ask(event[1], now_s), []
    if event[0] == "report":
        return gate.report(event[1], event[2], now_s)
    if event[0] == "choose":
        return None, gate.choose(min(event[1], gate.newest), now_s)
    if event[0] == "let_go":
        return None, gate.let_go(now_s)
    return None, gate.advance(now_s)


@settings(deadline=None)
@given(st.lists(EVENT, max_size=60), st.sampled_from([0.0, 0.5, 1.0]))
def test_one_version_is_released_and_one_at_most_is_tried(events: list[tuple[Any, ...]], canary_ratio: float) -> None:
    plan = replace(PLAN, canary_ratio=canary_ratio)
    gate, again = ReleaseGate(plan), ReleaseGate(plan)
    states, now_s = {0: "released"}, 0.0
    for event in events:
        now_s += event[1] if event[0] == "wait" else 0.0
        answer, changes = happened(gate, event, now_s)
        # A gate that was put away and taken up again answers the same.
        again = ReleaseGate.restore(plan, json.loads(json.dumps(again.state())))
        assert happened(again, event, now_s) == (answer, changes)
        for change in changes:
            assert states.get(change.version) != change.state.value
            states[change.version] = change.state.value
            # One version is retired before the next is released: never two.
            assert sum(state == "released" for state in states.values()) <= 1
        of_state = {name: [one for one, state in states.items() if state == name] for name in set(states.values())}
        assert of_state["released"] == [gate.released]
        on_trial = of_state.get("candidate", []) + of_state.get("canary", [])
        assert on_trial == ([gate.trial[0]] if gate.trial else [])
        assert len(of_state.get("waiting", [])) <= 1
        assert set(states) == set(range(gate.newest + 1))
        used = {gate.version_for(device) for device in range(6)}
        assert used <= {gate.released, *of_state.get("canary", [])}
        assert used | set(on_trial) <= gate.versions_in_use()
