"""A proxy that forwards every byte as it comes, and writes down when how many came."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

__all__ = ["Meter", "metering_proxy"]


@dataclass(slots=True)
class Meter:
    """What came on each connection: (seconds, bytes) towards the device and from it."""

    url: str = ""
    down: list[list[tuple[float, int]]] = field(default_factory=list)
    up: list[list[tuple[float, int]]] = field(default_factory=list)


@contextmanager
def metering_proxy(url: str) -> Iterator[Meter]:
    """A proxy before ``url``, in a thread of its own; its own URL is the meter's."""
    target, meter, ready = httpx.URL(url), Meter(), threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    stop = asyncio.Event()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[tuple[float, int]]) -> None:
        try:
            while piece := await reader.read(65536):
                seen.append((time.monotonic(), len(piece)))
                writer.write(piece)
                await writer.drain()
        finally:
            writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, back = await asyncio.open_connection(target.host, target.port)
        down: list[tuple[float, int]] = []
        up: list[tuple[float, int]] = []
        meter.down.append(down)
        meter.up.append(up)
        await asyncio.gather(copy(reader, back, up), copy(onward, writer, down), return_exceptions=True)

    async def run() -> None:
        open_ones: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(
            lambda reader, writer: open_ones.add(asyncio.create_task(forward(reader, writer))), "127.0.0.1", 0
        )
        meter.url = str(target.copy_with(port=server.sockets[0].getsockname()[1]))
        loops.append(asyncio.get_running_loop())
        ready.set()
        await stop.wait()
        server.close()
        for task in open_ones:
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(10.0)
    try:
        yield meter
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join()
