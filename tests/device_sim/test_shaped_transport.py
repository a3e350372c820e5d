import math
import time

import httpx
import pytest
from small_service import SmallService

from pocketfleet.device_sim.link_plan import Cut, LinkPlan
from pocketfleet.device_sim.phone_clock import PhoneClock
from pocketfleet.device_sim.shaped_transport import Link, ShapedTransport

# Slower than any host's loopback by far: 800 KB take 0.4 s down.
PLAN = LinkPlan(down_bits_per_s=16e6, up_bits_per_s=8e6, opens_s=0.1, reopens_s=0.2, latency_s=0.04)
SIZE = 800_000

# Of a host that runs other tests.
HOST_S = 10.0


def takes(seconds: float, expected_s: float) -> bool:
    """No less than the phone's time; how much more is the host's, which may be busy with other things."""
    return 0.85 * expected_s <= seconds < expected_s + HOST_S


def shaped(speed: float = 1.0) -> tuple[Link, httpx.Client]:
    link = Link(PhoneClock(speed=speed))
    return link, httpx.Client(transport=ShapedTransport(link), headers={"Authorization": "Bearer secret"})


def test_bytes_come_at_the_links_rate_after_its_opening() -> None:
    with SmallService() as service:
        address = f"{service.url}/files/{service.add(bytes(SIZE)).sha256}"
        link, client = shaped()
        with client:
            link.use(PLAN)
            began_s = time.monotonic()
            assert len(client.get(address).content) == SIZE
            seconds = time.monotonic() - began_s
            # 0.1 s to open and 0.4 s at 16 Mbit/s.
            assert takes(seconds, 0.5)
            # The second file of a transfer is asked for without waiting.
            began_s = time.monotonic()
            client.get(address)
            assert takes(time.monotonic() - began_s, 0.4)
        assert link.down_bytes == 2 * SIZE


def test_a_phone_that_lives_faster_has_a_faster_link() -> None:
    with SmallService() as service:
        address = f"{service.url}/files/{service.add(bytes(SIZE)).sha256}"
        link, client = shaped(speed=2.0)
        with client:
            link.use(PLAN)
            began_s = time.monotonic()
            client.get(address)
            assert takes(time.monotonic() - began_s, 0.25)


def test_bytes_leave_at_the_links_rate() -> None:
    with SmallService() as service:
        link, client = shaped()
        with client:
            link.use(PLAN)
            began_s = time.monotonic()
            assert client.put(f"{service.url}/reports/0", content=bytes(SIZE // 2)).status_code == 200
            # 0.1 s to open and 0.4 s at 8 Mbit/s.
            assert takes(time.monotonic() - began_s, 0.5)
            assert service.requests("reports/")[0].body == bytes(SIZE // 2)
        assert link.up_bytes == SIZE // 2


def test_a_lost_link_breaks_the_connection_and_a_new_one_waits_for_it() -> None:
    with SmallService() as service:
        address = f"{service.url}/files/{service.add(bytes(SIZE)).sha256}"
        link, client = shaped()
        cuts = (Cut(after_bytes=SIZE / 2, outage_s=0.3),)
        with client:
            link.use(
                LinkPlan(down_bits_per_s=1e9, up_bits_per_s=1e9, opens_s=0.0, reopens_s=0.2, latency_s=0.0, cuts=cuts)
            )
            with pytest.raises(httpx.ReadError, match="lost"):
                client.get(address)
            began_s = time.monotonic()
            assert len(client.get(address).content) == SIZE
            assert takes(time.monotonic() - began_s, 0.5)


def test_a_connection_may_break_without_an_outage() -> None:
    with SmallService() as service:
        address = f"{service.url}/files/{service.add(bytes(SIZE)).sha256}"
        link, client = shaped()
        with client:
            link.use(None, breaks_after=1_000.0)
            with pytest.raises(httpx.ReadError, match="broke"):
                client.get(address)
            assert len(client.get(address).content) == SIZE


def test_nothing_moves_once_the_network_is_gone() -> None:
    with SmallService() as service:
        address = f"{service.url}/files/{service.add(bytes(SIZE)).sha256}"
        link, client = shaped()
        with client:
            clock = link._clock
            link.use(PLAN, until_s=clock.now_s() + 0.2)
            with pytest.raises(httpx.ReadError, match="no network"):
                client.get(address)
            assert 0 < link.down_bytes < SIZE
            with pytest.raises(httpx.ConnectError, match="no network"):
                client.get(address)
            lost = Cut(after_bytes=1.0, outage_s=math.inf)
            link.use(
                LinkPlan(
                    down_bits_per_s=1e9, up_bits_per_s=1e9, opens_s=0.0, reopens_s=0.0, latency_s=0.0, cuts=(lost,)
                ),
                until_s=clock.now_s() + 0.1,
            )
            with pytest.raises(httpx.ReadError, match="lost"):
                client.get(address)
            with pytest.raises(httpx.ConnectError, match="no network"):
                client.get(address)


def test_what_the_service_needs_is_a_part_of_the_round_trip() -> None:
    with SmallService() as service:
        link, client = shaped()
        slow = LinkPlan(down_bits_per_s=1e9, up_bits_per_s=1e9, opens_s=0.4, reopens_s=0.0, latency_s=0.3)
        service.delay_s = 0.2
        with client:
            link.use(slow)
            began_s = time.monotonic()
            client.put(f"{service.url}/reports/0", content=b"update")
            assert takes(time.monotonic() - began_s, 0.4)
            # Begun a while ago, it is over so much earlier.
            link.use(slow, from_s=link._clock.now_s() - 0.1)
            began_s = time.monotonic()
            client.put(f"{service.url}/reports/0", content=b"update")
            assert takes(time.monotonic() - began_s, 0.3)
