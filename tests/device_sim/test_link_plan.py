import math
from dataclasses import fields

import numpy as np
import pytest

from pocketfleet.device_sim.fleet import DeviceOverride, Fleet, build_fleet
from pocketfleet.device_sim.link_plan import LinkPlan
from pocketfleet.device_sim.network import PoweredLinks
from pocketfleet.device_sim.radio import load_radios
from pocketfleet.device_sim.transfer import carry_transfers, transfer_rate_factor

DEVICES = 40
PAYLOAD_BYTES = 20e6


def lossy_fleet() -> Fleet:
    # A loss a second in the mean, one in twenty for good: of transfers of seconds some have none, some several.
    return build_fleet(devices=DEVICES, seed=5, overrides=[DeviceOverride(devices="all", link_losses_per_hour=3600.0)])


def link_of(fleet: Fleet, device: int) -> PoweredLinks:
    return PoweredLinks(**{field.name: getattr(fleet, field.name)[[device]] for field in fields(PoweredLinks)})


def plans(fleet: Fleet, purpose: str, *, asleep: bool) -> list[LinkPlan]:
    return [
        LinkPlan.drawn(
            fleet,
            link_of(fleet, device),
            purpose,
            seed=5,
            device=device,
            number=3,
            payload_bytes=PAYLOAD_BYTES,
            asleep=asleep,
        )
        for device in range(DEVICES)
    ]


@pytest.mark.parametrize(("purpose", "asleep"), [("download", True), ("upload", False)])
def test_a_plan_sums_up_to_the_simulators_seconds(purpose: str, asleep: bool) -> None:
    fleet, device = lossy_fleet(), np.arange(DEVICES)
    number = np.full(DEVICES, 3)
    side = "down" if purpose == "download" else "up"
    variation = getattr(fleet, f"{side}_variation_ratio")
    expected = carry_transfers(
        5,
        purpose,
        number,
        device,
        payload_bytes=np.full(DEVICES, PAYLOAD_BYTES),
        bits_per_s=getattr(fleet, f"{side}_bits_per_s") * transfer_rate_factor(5, purpose, number, device, variation),
        latency_s=fleet.latency_s,
        losses_per_s=fleet.link_losses_per_s,
        wake_s=load_radios().wake_s[fleet.radio],
        wakes=np.full(DEVICES, asleep),
        outage=fleet.outage,
    )
    found = plans(fleet, purpose, asleep=asleep)
    lost = np.isfinite(expected.lost_after_s)
    assert [math.isinf(plan.cuts[-1].outage_s) if plan.cuts else False for plan in found] == lost.tolist()
    assert 0 < lost.sum() < DEVICES
    assert any(len(plan.cuts) > 1 for plan in found)
    for row, plan in enumerate(found):
        survived = [cut for cut in plan.cuts if math.isfinite(cut.outage_s)]
        rate = getattr(plan, f"{side}_bits_per_s")
        moved = plan.cuts[-1].after_bytes if lost[row] else PAYLOAD_BYTES
        seconds = plan.opens_s + moved * 8.0 / rate + sum(cut.outage_s + plan.reopens_s for cut in survived)
        # Where the link is lost for good the device waits for the longest outage before it gives up.
        whole_s = expected.lost_after_s[row] - fleet.outage.limit_s if lost[row] else expected.seconds[row]
        assert seconds == pytest.approx(whole_s, rel=1e-9)


def test_a_small_request_costs_one_round_trip() -> None:
    fleet = lossy_fleet()
    plan = LinkPlan.of_request(link_of(fleet, 2))
    assert plan.opens_s == fleet.latency_s[2]
    assert plan.cuts == ()
    assert plan.up_bits_per_s == fleet.up_bits_per_s[2]
