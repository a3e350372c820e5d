"""A round played for all devices at once, against the same round played one event at a time."""

import numpy as np
import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from plain_round import PlainRound
from scripted import ScriptedDay

from pocketfleet.device_sim.attempt import Drop
from pocketfleet.device_sim.availability import Availability, FlashDay
from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.device_sim.events import EventLog
from pocketfleet.device_sim.fleet import DeviceOverride, Fleet, build_fleet
from pocketfleet.device_sim.open_round import OpenRound
from pocketfleet.device_sim.played_round import PlayedRound
from pocketfleet.device_sim.population import Population
from pocketfleet.device_sim.workload import Workload
from pocketfleet.training.admission import Admission
from pocketfleet.training.round import RoundPlan
from pocketfleet.training.selection import Uniform

DEVICES = 60
# Without battery limits and links that fail often, so that devices drop out and come back.
FLEET = build_fleet(
    devices=DEVICES, seed=5, overrides=[DeviceOverride(devices="all", battery_ratio=1.0, link_losses_per_hour=60.0)]
)


def population(
    *, fleet: Fleet = FLEET, seed: int, step_s: float = 5.0, steps: int = 6, day: Availability | None = None
) -> Population:
    devices = len(fleet)
    return Population(
        fleet=fleet,
        availability=day or FlashDay(seed=seed),
        rule=Rule(),
        workload=Workload(
            num_training=np.full(devices, 20),
            steps=np.full(devices, steps),
            step_s=np.linspace(step_s / 2, step_s * 2, devices),
            batch_size=8,
            training_memory_bytes=1,
            bundle_bytes=2_000_000,
            weights_bytes=100_000,
            update_bytes=100_000,
            partial_work=True,
        ),
        seed=seed,
        log=EventLog(),
    )


def play(
    made: Population,
    plan: RoundPlan,
    *,
    index: int = 0,
    opens_s: float,
    horizon_s: float = 1e6,
    admission: Admission | None = None,
) -> PlayedRound:
    return OpenRound(
        made,
        plan,
        round_index=index,
        model_version=0,
        opens_s=opens_s,
        horizon_s=horizon_s,
        selection=Uniform(seed=3, population=len(made.fleet)),
        admission=admission,
    ).play()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 10**6),
    cohort=st.sampled_from([1, 1, 2, 3, 5, 12]),
    over_selection=st.sampled_from([1.0, 1.3, 2.5]),
    deadline_s=st.sampled_from([20.0, 200.0, 3000.0]),
    pace_s=st.sampled_from([0.0, 300.0, 2000.0]),
    opens_s=st.floats(0.0, 2 * 86400.0),
    horizon_s=st.sampled_from([10.0, 2000.0, 20_000.0]),
    window_s=st.sampled_from([0.0, 0.0, 7.0, 170.0, 1700.0]),
    beyond=st.sampled_from([None, None, 0, 1, 3]),
    once=st.booleans(),
)
# Phones that come again after a choice has filled the round; and at the very time at which its last slot is taken.
@example(144, 1, 1.0, 20.0, 0.0, 0.0, 2000.0, 7.0, 0, False)
@example(301, 5, 1.0, 20.0, 0.0, 0.0, 2000.0, 0.0, None, False)
def test_rounds_are_those_played_one_event_at_a_time(
    seed: int,
    cohort: int,
    over_selection: float,
    deadline_s: float,
    pace_s: float,
    opens_s: float,
    horizon_s: float,
    window_s: float,
    beyond: int | None,
    once: bool,
) -> None:
    # A cap is the cohort or somewhat more: few devices of 60 may train in these hours.
    cap = 0 if beyond is None else cohort + beyond
    plan = RoundPlan(
        cohort=cohort,
        over_selection=over_selection,
        deadline_s=deadline_s,
        pace_s=pace_s,
        selection_window_s=window_s,
        population_cap=cap,
        max_participations=int(once),
    )
    admitted: set[int] = set()
    spent: set[int] = set()
    fast, slow = population(seed=seed), population(seed=seed)
    end_s = opens_s + horizon_s
    # Two rounds: into the second some devices come that are still busy or backing off from the first.
    for index in range(2):
        admission = Admission(cap=cap, population=DEVICES, max_participations=int(once))
        admission.admit(np.array(sorted(admitted), dtype=np.int64))
        admission.count(np.array(sorted(spent), dtype=np.int64))
        played = play(fast, plan, index=index, opens_s=opens_s, horizon_s=end_s, admission=admission)
        selection = Uniform(seed=3, population=DEVICES)
        plain = PlainRound(
            slow,
            plan,
            round_index=index,
            opens_s=opens_s,
            horizon_s=end_s,
            selection=selection,
            admitted=admitted,
            spent=spent,
        )
        closes_s = plain.play()
        assert played.closes_s == closes_s
        assert list(zip(played.flights["device"], played.flights["start_s"], strict=True)) == plain.started
        assert list(zip(played.turned_away, played.turned_away_s, strict=True)) == plain.turned_away
        assert played.looks == plain.looks
        for name in ("held", "left", "refused"):
            rows = getattr(played, name)
            assert list(zip(rows.device, rows.at_s, strict=True)) == getattr(plain, name), name
        assert (played.candidates > 0) == (window_s > 0.0 and len(plain.started) > 0)
        event(f"window {window_s > 0.0} cap {cap > 0} once {once}")
        event(f"left {len(plain.left) > 0} refused {len(plain.refused) > 0}")
        for name in ("refused", "free_s", "failures", "has_bundle", "assigned"):
            np.testing.assert_array_equal(fast.ledger.column[name], slow.ledger.column[name], err_msg=name)
        if closes_s == np.inf:
            return
        opens_s = closes_s
        if once:
            reported = (played.flights["drop"] == Drop.NONE) & (played.flights["end_s"] <= closes_s)
            spent |= set(played.flights["device"][reported].tolist())


def test_without_a_pace_all_who_may_come_at_once() -> None:
    made = population(seed=2)
    played = play(made, RoundPlan(cohort=2, over_selection=1.0), opens_s=14_400.0)
    assert len(played.turned_away) > 0
    assert set(played.turned_away_s) == {14_400.0}
    assert played.looks == DEVICES
    # Who starts and who is turned away is drawn anew.
    firsts = {
        tuple(play(population(seed=2), RoundPlan(cohort=2), index=index, opens_s=14_400.0).flights["device"])
        for index in range(8)
    }
    assert len(firsts) > 1


def test_with_a_pace_devices_come_spread_over_it() -> None:
    made = population(seed=2)
    plan = RoundPlan(cohort=60, over_selection=1.0, deadline_s=7000.0, pace_s=2000.0, minimum_ratio=0.0)
    played = play(made, plan, opens_s=14_400.0)
    starts = played.flights["start_s"]
    assert len(starts) > 3
    # No two at one time.
    assert len(set(starts)) == len(starts)
    assert played.closes_s == starts.min() + 7000.0
    # Five passes at most come within 7,000 s of the first start and the time before it.
    assert played.looks <= 5 * DEVICES


def test_who_comes_after_the_last_slot_was_taken_is_not_refused_by_a_full_population() -> None:
    # One after the other is in use until 500 s and later; the first takes the one slot and the one place.
    day = ScriptedDay(*((device, "idle", -1.0, 500.0 + device) for device in range(DEVICES)))
    made, plan = population(seed=2, day=day), RoundPlan(cohort=1, over_selection=1.0, population_cap=1)
    played = play(made, plan, opens_s=0.0, admission=Admission(cap=1, population=DEVICES))
    assert played.flights["device"].tolist()[:1] == [0]
    assert len(played.refused.device) == 0
    # In the next round they come, and are.
    admission = Admission(cap=1, population=DEVICES)
    admission.admit(np.array([0]))
    opens_s = 1000.0
    played = play(made, plan, index=1, opens_s=opens_s, admission=admission)
    assert sorted(played.refused.device) == list(range(1, DEVICES))
    assert made.ledger.column["refused"].sum() == DEVICES - 1
    assert play(made, plan, index=2, opens_s=played.closes_s, admission=admission).looks < DEVICES


def test_a_round_that_nobody_can_start_in_holds_no_looks() -> None:
    fleet = build_fleet(devices=DEVICES, seed=5, overrides=[DeviceOverride(devices="all", metered=True)])
    made = population(fleet=fleet, seed=5)
    opened = OpenRound(made, RoundPlan(cohort=5), round_index=0, model_version=0, opens_s=0.0, horizon_s=20 * 86_400.0)
    played = opened.play()
    assert played.closes_s == np.inf
    # A look every 15 minutes at least, of every device; those of the last window alone are still held.
    assert played.looks > 20 * 96 * DEVICES
    assert sum(len(look.device) for look in opened._looks) < played.looks / 100
    counted = sum(made.ledger.column[name].sum() for name in made.ledger.column if name.startswith("ineligible_"))
    assert counted == played.looks


@pytest.mark.parametrize("devices", [2000, 20_000])
def test_a_larger_fleet_costs_a_paced_round_no_more_looks(devices: int) -> None:
    fleet = build_fleet(devices=devices, seed=5)
    # The pace grows with the fleet, as a server steers it; so do the looks of a round stay about the same.
    plan = RoundPlan(cohort=20, deadline_s=600.0, pace_s=devices * 0.5)
    played = play(population(fleet=fleet, seed=5), plan, opens_s=14_400.0)
    # 26 slots and one device in ten: some hundreds.
    assert 100 < played.looks < 1000
