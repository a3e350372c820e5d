"""Networks that lose, cut, repeat and delay; a disk that is full; clocks that are set anew."""

import asyncio
import resource
import time
from pathlib import Path

import httpx
import pytest
from faulty_proxy import FATES, FaultyProxy
from server_process import Device, started
from test_killed_servers import check_books, enrolled
from tiny_service import BASE, CHECK_IN, digest, update_bytes

from pocketfleet.training.server import wall_clock
from pocketfleet.training.server.administration import issue_tokens
from pocketfleet.training.server.wall_clock import WallClock

ROUNDS = 15


def test_rounds_close_whatever_the_network_does(tmp_path: Path) -> None:
    async def work(server_port: int, devices: list[Device]) -> dict[str, int]:
        stop = asyncio.Event()
        async with FaultyProxy(server_port, seed=3) as proxy, httpx.AsyncClient(timeout=10.0) as client:
            for device in devices:
                device.urls[:] = [proxy.url]
            tasks = [asyncio.create_task(device.run(client, stop)) for device in devices]
            for _ in range(1200):
                if sum(len(device.acknowledged) for device in devices) >= 4 * ROUNDS:
                    break
                assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]
                await asyncio.sleep(0.05)
            stop.set()
            await asyncio.gather(*tasks)
            return dict(proxy.fates)

    with started(tmp_path) as server:
        devices = enrolled(server, tmp_path, [server.url])
        fates = asyncio.run(work(server.port, devices))
    assert set(fates) == {"pass", *FATES}
    check_books(tmp_path, devices, rounds=ROUNDS - 3)


def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    with started(tmp_path) as server:
        device = enrolled(server, tmp_path, [server.url])[0]
        others = issue_tokens(tmp_path / "state", count=1)
        headers = device.headers
        work = httpx.post(f"{server.url}{BASE}/check-in", json=CHECK_IN, headers=headers).json()["assignment"]
        body = update_bytes(1.0, 2.0, 3.0)
        url = f"{server.url}{BASE}/reports/{work['assignment_id']}"
        facts = {"num_examples": 1, "steps": 1, "examples_held": 1, "train_loss": 0.5}
        sent = headers | {"Content-Digest": digest(body)}
        # As a full disk does: every file may be read, and none may grow.
        limits = resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        for answer in (
            httpx.put(url, params=facts, content=body, headers=sent),
            httpx.post(f"{server.url}{BASE}/check-in", json=CHECK_IN, headers=headers),
            httpx.post(f"{server.url}{BASE}/enrol", json={"token": others[0]}),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage"), answer.text
            assert int(answer.headers["retry-after"]) >= 1
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, limits)
        answer = httpx.put(url, params=facts, content=body, headers=sent)
        assert (answer.status_code, answer.json()["code"]) == (200, "accepted")
        assert httpx.post(f"{server.url}{BASE}/enrol", json={"token": others[0]}).status_code == 201


def test_the_clock_on_the_wall_may_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    at = [1000.0]
    monkeypatch.setattr(wall_clock, "wall_s", lambda: at[0])
    clock = WallClock(epoch_s=900.0)
    assert clock.now_s() == pytest.approx(100.0, abs=1.0)
    for jump in (-500.0, 86_400.0):
        at[0] = 1000.0 + jump
        assert clock.now_s() == pytest.approx(100.0, abs=1.0)
    # A start with a clock that is behind goes on from the last decision, one that is ahead from the clock.
    at[0] = 500.0
    assert WallClock(epoch_s=900.0, least_s=120.0).now_s() == pytest.approx(120.0, abs=1.0)
    at[0] = 2000.0
    assert WallClock(epoch_s=900.0, least_s=120.0).now_s() == pytest.approx(1100.0, abs=1.0)


def test_a_clock_goes_on() -> None:
    clock = WallClock(epoch_s=wall_clock.wall_s())
    first = clock.now_s()
    until_s = time.monotonic() + 0.05
    while time.monotonic() < until_s:
        pass
    assert 0.0 <= first < clock.now_s() - 0.04
