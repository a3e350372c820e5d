"""The stages of a secure sum on the virtual network: who answers, who is lost and why, what it costs."""

import numpy as np
import pytest
from scripted import ScriptedDay

from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.device_sim.events import EventLog
from pocketfleet.device_sim.fleet import DeviceOverride, build_fleet
from pocketfleet.device_sim.flight import no_flights
from pocketfleet.device_sim.ledger import Ledger
from pocketfleet.device_sim.secure_group import SecureGroup
from pocketfleet.device_sim.secure_stages import Group, SecureStages
from pocketfleet.training.privacy.secure_aggregation.neighbourhood import Neighbourhood
from pocketfleet.training.privacy.secure_aggregation.settings import SecureSettings

DEVICES, DEADLINE_S = 6, 50.0
WIFI = Rule(idle=True, charging=True, unmetered=True, min_battery_ratio=0.0)
# 10 kB in the masked stage: a second at 80 kbit/s, beside three round trips.
SETTINGS = SecureSettings(vector_length=2_500, ring_bytes=4)
LINK = {"down_bits_per_s": 1e9, "up_bits_per_s": 80_000.0, "latency_s": 0.1, "link_losses_per_hour": 0.0}


def played(day: ScriptedDay, *, rule: Rule = WIFI, **link: object) -> tuple[Group, EventLog, Ledger]:
    override = DeviceOverride(devices="all", **{**LINK, "metered": False, **link})
    fleet = build_fleet(devices=DEVICES, seed=3, phones=["Pixel 8"] * DEVICES, overrides=[override])
    log, ledger = EventLog(), Ledger(DEVICES)
    stages = SecureStages(
        fleet=fleet,
        availability=day,
        rule=rule,
        seed=3,
        ledger=ledger,
        log=log,
        stage_deadline_s=DEADLINE_S,
        group_of=lambda members, _: SecureGroup(
            SETTINGS, Neighbourhood.drawn(members, degree=members - 1, threshold=4, seed=1)
        ),
    )
    flights = no_flights(DEVICES, device=np.arange(DEVICES))
    return stages.play(flights, round_index=0, opens_s=1_000.0), log, ledger


def test_all_answer_and_each_stage_opens_with_the_last_answer_of_the_one_before() -> None:
    group, log, ledger = played(ScriptedDay())
    assert group.no_sum == ""
    assert group.in_sum.all()
    assert group.answered.tolist() == [3] * DEVICES
    events = log.take()
    closing = events[events["kind"] == "sum"]
    assert closing["time_s"].tolist() == [group.ended_s]
    assert closing["reason"].tolist() == [""]
    ends = {kind: events[events["kind"] == kind]["time_s"].max() for kind in ("shares", "masked", "unmask")}
    received = events[events["kind"] == "receive"]
    # Whoever receives in a stage began when the stage before was over.
    began = (received["time_s"] - received["seconds"]).to_numpy().reshape(3, DEVICES)
    np.testing.assert_allclose(began[1], ends["shares"])
    np.testing.assert_allclose(began[2], ends["masked"])
    # The last stage needs no more than four of the six.
    assert group.ended_s == pytest.approx(np.sort(events[events["kind"] == "unmask"]["time_s"])[3])
    masked = events[events["kind"] == "masked"]
    assert masked["bytes"].tolist() == [10_000] * DEVICES
    # Rates vary from transfer to transfer; 80 kbit are a second at the mean rate.
    assert 0.5 < masked["seconds"].median() < 2.5
    sent = events[events["kind"].isin(["shares", "masked", "unmask"])]
    assert ledger.column["uplink_bytes"].sum() == sent["bytes"].sum()
    assert ledger.column["energy_joules"].sum() == pytest.approx(events["joules"].sum())
    assert (ledger.column["free_s"] > 1_000.0).all()


def test_one_that_has_left_wifi_is_lost_and_waited_for() -> None:
    group, log, _ = played(ScriptedDay((2, "wifi", 500.0, 2_000.0)))
    assert group.answered.tolist() == [3, 3, 0, 3, 3, 3]
    assert group.in_sum.tolist() == [True, True, False, True, True, True]
    events = log.take()
    lost = events[(events["device"] == 2)]
    assert lost["kind"].tolist() == ["receive"]
    assert lost["reason"].tolist() == ["metered"]
    assert lost["bytes"].tolist() == [0]
    # Nothing was sent: no radio was awake.
    assert lost["joules"].tolist() == [0.0]
    # The server does not know: the first stage takes its deadline, the others do not.
    first = events[(events["kind"] == "receive") & (events["device"] == 0)]
    began = (first["time_s"] - first["seconds"]).tolist()
    assert began[:2] == [1_000.0, 1_000.0 + DEADLINE_S]
    assert began[2] < 1_000.0 + 2 * DEADLINE_S


def test_where_the_rule_does_not_ask_for_wifi_leaving_it_costs_money_and_nothing_else() -> None:
    rule = Rule(idle=True, charging=True, unmetered=False, min_battery_ratio=0.0)
    group, _, ledger = played(ScriptedDay((2, "wifi", 500.0, 2_000.0)), rule=rule)
    assert group.in_sum.all()
    assert ledger.column["metered_bytes"][2] > 10_000
    assert ledger.column["metered_bytes"][[0, 1, 3, 4, 5]].sum() == 0


def test_one_that_leaves_in_the_middle_of_its_vector_has_sent_a_part() -> None:
    _, log, _ = played(ScriptedDay())
    events = log.take()
    mine = events[(events["device"] == 1) & (events["kind"] == "masked")].iloc[0]
    middle_s = float(mine["time_s"] - 0.5 * mine["seconds"])
    group, log, _ = played(ScriptedDay((1, "wifi", middle_s, middle_s + 1_000.0)))
    assert group.answered.tolist() == [3, 1, 3, 3, 3, 3]
    assert not group.no_sum
    events = log.take()
    cut = events[(events["device"] == 1) & (events["kind"] == "masked")].iloc[0]
    assert cut["reason"] == "metered"
    assert 4_000 < cut["bytes"] < 6_000


def test_too_few_leave_no_sum_and_the_reason() -> None:
    day = ScriptedDay(*[(device, "wifi", 500.0, 2_000.0) for device in (0, 1, 2)])
    group, log, _ = played(day)
    assert group.played == 1
    assert "fewer than 4 holders are left" in group.no_sum
    assert not group.in_sum.any()
    events = log.take()
    assert events[events["kind"] == "sum"]["reason"].tolist() == ["no_sum"]
    assert group.ended_s == 1_000.0 + DEADLINE_S


def test_a_link_too_slow_for_the_deadline_is_lost() -> None:
    # 10 kB at 800 bit/s take 100 s.
    group, _, _ = played(ScriptedDay(), up_bits_per_s=800.0, latency_s=0.0)
    assert group.played >= 1
    assert group.no_sum
    assert group.ended_s <= 1_000.0 + 2 * DEADLINE_S
