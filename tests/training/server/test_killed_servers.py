"""Servers are killed at any moment: what was acknowledged counts once, and every version can be made again."""

import asyncio
import hashlib
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import pytest
import sqlalchemy as sa
import torch
from postgres_server import PostgresServer
from server_process import Device, ServerProcess
from tiny_service import BASE

from pocketfleet.training.draws import draw_key, uniform
from pocketfleet.training.server.administration import issue_tokens
from pocketfleet.training.server.database import MODELS, REPORTS, ROUNDS, open_database
from pocketfleet.training.update import tensors_from_bytes
from pocketfleet.training.weights import tensors_sha256

DEVICES = 6


def enrolled(server: ServerProcess, folder: Path, urls: list[str], *, database_url: str = "") -> list[Device]:
    tokens = issue_tokens(folder / "state", count=DEVICES, database_url=database_url)
    answers = [httpx.post(f"{server.url}{BASE}/enrol", json={"token": token}).json() for token in tokens]
    return [Device(urls, answer["credential"], number) for number, answer in enumerate(answers)]


async def live_through(
    servers: list[ServerProcess], devices: list[Device], *, kills: int, rounds: int, seed: int
) -> int:
    """Devices work while one server after another is killed and started; until all kills and rounds are done."""
    stop = asyncio.Event()
    draws = uniform(draw_key(seed, "kill"), 2 * kills)
    async with httpx.AsyncClient(timeout=10.0) as client:
        work = [asyncio.create_task(device.run(client, stop)) for device in devices]
        try:
            for number in range(kills):
                before = sum(len(device.acknowledged) for device in devices)
                await asyncio.sleep(0.05 + 0.6 * draws[2 * number])
                victim = servers[number % len(servers)]
                victim.kill()
                # Of two the other one takes over first.
                await asyncio.to_thread(victim.start, wait=len(servers) == 1)
                for _ in range(600):
                    if sum(len(device.acknowledged) for device in devices) > before:
                        break
                    assert not any(task.done() for task in work), [task for task in work if task.done()]
                    await asyncio.sleep(0.05)
                if len(servers) > 1:
                    await asyncio.to_thread(victim.wait_until, "healthz")
            for _ in range(2400):
                counted = sum(len(device.acknowledged) for device in devices)
                if counted >= 4 * rounds:
                    break
                assert not any(task.done() for task in work), [task for task in work if task.done()]
                await asyncio.sleep(0.05)
        finally:
            stop.set()
            done = await asyncio.gather(*work, return_exceptions=True)
    assert not [one for one in done if isinstance(one, BaseException)]
    return counted


def check_books(folder: Path, devices: list[Device], *, rounds: int, database_url: str = "") -> None:
    database = open_database(folder / "state", database_url)
    with database.connect() as connection:
        reports = connection.execute(sa.select(REPORTS).order_by(REPORTS.c.device)).all()
        closed = connection.execute(sa.select(ROUNDS).order_by(ROUNDS.c.round)).all()
        models = connection.execute(sa.select(MODELS).order_by(MODELS.c.version)).all()
    database.dispose()
    stored = {row.assignment: row for row in reports}
    for device in devices:
        for assignment, body in device.acknowledged.items():
            assert stored[assignment].sha256 == hashlib.sha256(body).hexdigest()
    # A round counts each device once, and as many reports as its closing says.
    assert max(Counter((row.counted_in, row.device) for row in reports).values()) == 1
    per_round = Counter(row.counted_in for row in reports)
    assert all(per_round[row.round] == row.accepted for row in closed)
    assert [row.round for row in closed] == list(range(len(closed)))
    assert len(models) - 1 >= rounds
    assert [row.version for row in models] == list(range(len(models)))
    # Every version again, of the one before and of the kept files, by plain arithmetic.
    weights = {"w": torch.zeros(3), "b": torch.zeros(1)}
    succeeded = [row for row in closed if row.succeeded]
    for row, model in zip(succeeded, models[1:], strict=False):
        of_round = [one for one in reports if one.counted_in == row.round]
        files = [folder / "state" / "updates" / f"{one.assignment}-{one.sha256}.update" for one in of_round]
        updates = [tensors_from_bytes(file.read_bytes()) for file in files]
        shares = torch.tensor([one.num_examples for one in of_round], dtype=torch.float64)
        mean = {
            name: (shares @ torch.stack([update[name] for update in updates]).to(torch.float64)) / shares.sum()
            for name in ("w", "b")
        }
        weights = {
            "w": (weights["w"].to(torch.float64) + mean["w"]).to(torch.float32),
            "b": mean["b"].to(torch.float32),
        }
        assert model.model_sha256 == tensors_sha256(weights), f"version {model.version}"


@pytest.mark.parametrize(
    ("kills", "rounds"), [pytest.param(5, 20, id="5"), pytest.param(55, 200, id="55", marks=pytest.mark.long)]
)
def test_a_server_that_is_killed_loses_nothing(tmp_path: Path, kills: int, rounds: int) -> None:
    server = ServerProcess(tmp_path)
    server.start()
    try:
        devices = enrolled(server, tmp_path, [server.url])
        counted = asyncio.run(live_through([server], devices, kills=kills, rounds=rounds, seed=1))
    finally:
        server.stop()
    assert counted >= 4 * rounds
    check_books(tmp_path, devices, rounds=rounds - 1)


@pytest.mark.parametrize(
    ("kills", "rounds"), [pytest.param(4, 20, id="4"), pytest.param(50, 200, id="50", marks=pytest.mark.long)]
)
def test_two_servers_on_one_postgresql_lose_nothing(
    tmp_path: Path, postgres: PostgresServer, kills: int, rounds: int
) -> None:
    url = postgres.new_database()
    servers = [ServerProcess(tmp_path, database_url=url) for _ in range(2)]
    try:
        servers[0].start()
        servers[1].start(wait=False)
        servers[1].wait_until("healthz")
        devices = enrolled(servers[0], tmp_path, [server.url for server in servers], database_url=url)
        asyncio.run(live_through(servers, devices, kills=kills, rounds=rounds, seed=2))
    finally:
        for server in servers:
            server.stop()
    check_books(tmp_path, devices, rounds=rounds - 1, database_url=url)


def test_the_draws_of_kills_are_spread() -> None:
    draws = uniform(draw_key(1, "kill"), 110)
    assert np.ptp(draws) > 0.9
