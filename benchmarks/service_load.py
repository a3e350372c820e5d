"""The service under load: durable reports a second, check-ins a second, memory, and slow clients beside others.

A server process of its own serves a buffered population of a model without a meaning; this process is the load, over
keep-alive connections: each takes a device, checks it in, and reports what it was given. Both share this machine's
cores. Reports are counted when they were acknowledged, which is after file and decision are on the disk; each must be
accepted. Memory is the server's resident size, first after a tenth of the reports. Slow clients send their headers at
one byte a second while others check in.

What is wanted is told in the last line, and whether it held; it fails only where work was lost.

Usage: python benchmarks/service_load.py [--reports 20000] [--large-reports 400] [--check-ins 20000] [--slow 200]
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pocketfleet.training.aggregation import MeanAggregator
from pocketfleet.training.algorithms.fedavg import FedAvg
from pocketfleet.training.codec import DownloadCodec, LosslessCodec
from pocketfleet.training.round import BufferedPlan, Int64s
from pocketfleet.training.server.administration import issue_tokens
from pocketfleet.training.server.app import make_app
from pocketfleet.training.server.http_server import listening_socket, make_server, run
from pocketfleet.training.server.http_server import serve as serve_http
from pocketfleet.training.server.protocol import Rule
from pocketfleet.training.server.service import Service
from pocketfleet.training.server.service_log import ServiceLog
from pocketfleet.training.server.service_plan import Limits, ServicePlan
from pocketfleet.training.server_optimizer import ServerSgd
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Weights

BASE = "/v1/populations/load"
DEVICES, CONNECTIONS = 1_000, 32
# Values of float32, so that a report has about 12 kB or 1 MB.
SMALL, LARGE = 3_000, 250_000
WANTED_REPORTS_PER_S, WANTED_LARGE_PER_S, WANTED_P99_S = 300.0, 40.0, 1.0
WANTED_CHECK_INS_PER_S, WANTED_GROWTH_BYTES = 1_000.0, 50e6
# p99 of others beside slow clients: within twice of what it is without them, or so many seconds.
WANTED_SLOW_RATIO, WANTED_SLOW_S = 2.0, 0.1
CHECK_IN = json.dumps({"protocol": 1, "programs": {"onnx": "1.31.0"}, "codecs": ["lossless"]}).encode()


def plan(folder: Path, *, size: int, concurrency: int) -> ServicePlan:
    """A buffered population: every report on live work counts."""
    program = folder / "train_step.onnx"
    program.write_bytes(b"none")
    weights = Weights(trainable={"w": torch.zeros(size)}, buffers={}, frozen={})

    def one_chunk(device: Int64s, *_: Int64s) -> Iterator[Int64s]:
        for start in range(0, len(device), 8):
            yield np.arange(start, min(start + 8, len(device)))

    return ServicePlan(
        population="load",
        fingerprint=f"load of {size}",
        seed=1,
        count=10**9,
        rounds=BufferedPlan(buffer=100, concurrency=concurrency, max_staleness=10**6, deadline_s=600.0),
        weights=weights,
        algorithm=FedAvg(server_optimizer=ServerSgd()),
        algorithm_name="fedavg",
        algorithm_options={},
        make_aggregator=MeanAggregator,
        chunks=one_chunk,
        staleness_exponent=0.5,
        codec=LosslessCodec(),
        report=Update({"w": torch.zeros(size)}, {}),
        download=DownloadCodec(frozenset({"w"})),
        programs={"onnx": {"train_step.onnx": program}},
        preferred_program="onnx",
        hyper={"learning_rate": 0.1},
        epochs=1,
        steps=0,
        batch_size=8,
        partial_work="report",
        rule=Rule(idle=True, charging=True, unmetered=True, min_battery_ratio=0.3, min_examples=1),
        limits=Limits(
            max_devices=DEVICES, device_requests_per_s=0.0, longest_retry_s=1.0, header_timeout_s=600.0, keep_models=4
        ),
    )


def serve(folder: Path, port: int, size: int, concurrency: int) -> None:
    """What the server process does."""
    torch.set_num_threads(1)
    service = Service(plan(folder, size=size, concurrency=concurrency), folder / "state", log=ServiceLog())
    server = make_server(make_app(service), header_timeout_s=600.0)
    run(serve_http(server, service, listening_socket("127.0.0.1", port)))


class Connection:
    """HTTP/1.1 by hand: the load must not cost more than what it loads."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def open(self) -> "Connection":
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def ask(self, method: str, path: str, *, body: bytes = b"", headers: str = "") -> tuple[int, bytes]:
        """The status and the body of the answer."""
        head = f"{method} {path} HTTP/1.1\r\nHost: load\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self._writer.write(head.encode() + body)
        await self._writer.drain()
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        status = int(answer[9:12])
        length = int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        return status, await self._reader.readexactly(length)

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


@contextlib.asynccontextmanager
async def served(*, size: int, concurrency: int) -> AsyncIterator[tuple[int, int, list[str]]]:
    """A server process; gives its port, its pid and the credentials of its devices."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, __file__, "--serve", str(folder), str(port), str(size), str(concurrency)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stderr=log)
        try:
            connection = Connection(port)
            for _ in range(600):
                with contextlib.suppress(OSError):
                    await connection.open()
                    if (await connection.ask("GET", "/readyz"))[0] == 200:
                        break
                await asyncio.sleep(0.1)
            yield port, process.pid, await enrolled(connection, folder / "state")
        finally:
            process.terminate()
            process.wait(timeout=60)
            failures = [line for line in (folder / "log").read_text().splitlines() if "error" in line]
            if failures:
                raise SystemExit(f"the server failed: {failures[0]}")


async def enrolled(connection: Connection, state: Path) -> list[str]:
    """The credentials of all devices."""
    found = []
    for token in issue_tokens(state, count=DEVICES):
        status, body = await connection.ask("POST", f"{BASE}/enrol", body=json.dumps({"token": token}).encode())
        assert status == 201, body
        found.append(str(json.loads(body)["credential"]))
    return found


def resident_bytes(pid: int) -> int:
    """Of a process that runs."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def quantiles(seconds: list[float]) -> dict[str, float]:
    """The median, the 99th percentile and the longest."""
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50_s": cuts[49], "p99_s": cuts[98], "max_s": max(seconds)}


async def reports(*, size: int, count: int) -> dict[str, Any]:
    """So many acknowledged reports, as fast as the connections go."""
    body = LosslessCodec().encode(Update({"w": torch.ones(size)}, {}))
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    facts = "num_examples=8&steps=1&examples_held=10&train_loss=0.5"
    async with served(size=size, concurrency=CONNECTIONS) as (port, pid, credentials):
        seconds: list[float] = []
        memory: list[int] = []
        numbers = iter(range(count))
        began_s = time.perf_counter()

        async def work(connection: Connection) -> None:
            for number in numbers:
                bearer = f"Authorization: Bearer {credentials[number % DEVICES]}\r\n"
                while True:
                    status, text = await connection.ask("POST", f"{BASE}/check-in", body=CHECK_IN, headers=bearer)
                    assignment = json.loads(text).get("assignment") if status == 200 else None
                    if assignment:
                        break
                    assert status == 200, text
                    await asyncio.sleep(0.01)
                asked_s = time.perf_counter()
                path = f"{BASE}/reports/{assignment['assignment_id']}?{facts}"
                header = f"{bearer}Content-Digest: sha-256=:{digest}:\r\n"
                status, text = await connection.ask("PUT", path, body=body, headers=header)
                assert status == 200, text
                seconds.append(time.perf_counter() - asked_s)
                if len(seconds) in {count // 10, count}:
                    memory.append(resident_bytes(pid))

        connections = [await Connection(port).open() for _ in range(CONNECTIONS)]
        await asyncio.gather(*map(work, connections))
        took_s = time.perf_counter() - began_s
        for connection in connections:
            connection.close()
    return {
        "report_bytes": len(body),
        "reports": count,
        "reports_per_s": count / took_s,
        **quantiles(seconds),
        "memory_bytes": memory[0],
        "memory_growth_bytes": memory[1] - memory[0],
    }


async def check_ins(*, count: int, slow: int) -> list[dict[str, Any]]:
    """Check-ins as fast as the connections go, nearly all turned away: alone, then beside slow clients."""
    rows = []
    async with served(size=SMALL, concurrency=1) as (port, _, credentials):
        for slow_clients in (0, slow):
            dripping = [asyncio.create_task(drip(port)) for _ in range(slow_clients)]
            await asyncio.sleep(1.0 if slow_clients else 0.0)
            rows.append({"slow_clients": slow_clients, **await _asked(port, credentials, count)})
            for task in dripping:
                task.cancel()
            await asyncio.gather(*dripping, return_exceptions=True)
    return rows


async def _asked(port: int, credentials: list[str], count: int) -> dict[str, Any]:
    seconds: list[float] = []
    numbers = iter(range(count))

    async def work(connection: Connection) -> None:
        for number in numbers:
            bearer = f"Authorization: Bearer {credentials[number % DEVICES]}\r\n"
            asked_s = time.perf_counter()
            status, text = await connection.ask("POST", f"{BASE}/check-in", body=CHECK_IN, headers=bearer)
            assert status == 200, text
            seconds.append(time.perf_counter() - asked_s)

    connections = [await Connection(port).open() for _ in range(CONNECTIONS)]
    began_s = time.perf_counter()
    await asyncio.gather(*map(work, connections))
    took_s = time.perf_counter() - began_s
    for connection in connections:
        connection.close()
    return {"check_ins": count, "check_ins_per_s": count / took_s, **quantiles(seconds)}


async def drip(port: int) -> None:
    """A request's headers at one byte a second."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for byte in f"POST {BASE}/check-in HTTP/1.1\r\nHost: load\r\n".encode() * 100:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(1.0)
    finally:
        writer.close()


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, default=20_000)
    parser.add_argument("--large-reports", type=int, default=400)
    parser.add_argument("--check-ins", type=int, default=20_000)
    parser.add_argument("--slow", type=int, default=200)
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        folder, *numbers = arguments.serve
        serve(Path(folder), *map(int, numbers))
        return
    small = asyncio.run(reports(size=SMALL, count=arguments.reports))
    print(json.dumps(small), flush=True)
    large = asyncio.run(reports(size=LARGE, count=arguments.large_reports))
    print(json.dumps(large), flush=True)
    alone, beside = asyncio.run(check_ins(count=arguments.check_ins, slow=arguments.slow))
    print(json.dumps(alone), flush=True)
    print(json.dumps(beside), flush=True)
    met = {
        "reports_per_s": small["reports_per_s"] >= WANTED_REPORTS_PER_S,
        "large_reports_per_s": large["reports_per_s"] >= WANTED_LARGE_PER_S,
        "p99": max(small["p99_s"], large["p99_s"]) < WANTED_P99_S,
        "memory": small["memory_growth_bytes"] < WANTED_GROWTH_BYTES,
        "check_ins_per_s": alone["check_ins_per_s"] >= WANTED_CHECK_INS_PER_S,
        "slow_clients": beside["p99_s"] <= max(WANTED_SLOW_RATIO * alone["p99_s"], WANTED_SLOW_S),
    }
    print(json.dumps({"met": met}))


if __name__ == "__main__":
    main()
