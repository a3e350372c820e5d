"""A proxy that forwards every byte as it comes, and writes down when how many came.

It holds next to nothing itself, and keeps the kernel from holding more than some packets for it: what it sees is the
pace of the side that is slow.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

__all__ = ["Connection", "Meter", "metering_proxy"]

# The least that Linux grants (socket(7)); it doubles them.
_SOCKET_BYTES = 2048
_PIECE_BYTES = 1024


@dataclass(slots=True)
class Connection:
    """What came on it, (seconds, bytes) towards the device and from it."""

    down: list[tuple[float, int]] = field(default_factory=list)
    up: list[tuple[float, int]] = field(default_factory=list)


@dataclass(slots=True)
class Meter:
    """The proxy's own URL, and its connections in the order of their beginning."""

    url: str = ""
    connections: list[Connection] = field(default_factory=list)


@contextmanager
def metering_proxy(url: str) -> Iterator[Meter]:
    """A proxy before ``url``, in a thread of its own."""
    target, meter, ready = httpx.URL(url), Meter(), threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    stop = asyncio.Event()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = Connection()
        meter.connections.append(seen)
        onward, back = await asyncio.open_connection(target.host, target.port, limit=_PIECE_BYTES)
        await asyncio.gather(_copy(reader, back, seen.up), _copy(onward, writer, seen.down), return_exceptions=True)

    async def run() -> None:
        going: set[asyncio.Task[None]] = set()
        listening = socket.socket()
        # Inherited by the connections: set later, the window is open already.
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            listening.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BYTES)
        listening.bind(("127.0.0.1", 0))
        server = await asyncio.start_server(
            lambda reader, writer: going.add(asyncio.create_task(forward(reader, writer))),
            sock=listening,
            limit=_PIECE_BYTES,
        )
        meter.url = str(target.copy_with(port=listening.getsockname()[1]))
        loops.append(asyncio.get_running_loop())
        ready.set()
        await stop.wait()
        server.close()
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    if not ready.wait(10.0):
        raise RuntimeError("the proxy does not start")
    try:
        yield meter
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[tuple[float, int]]) -> None:
    writer.transport.set_write_buffer_limits(high=0)
    try:
        while piece := await reader.read(_PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
            seen.append((time.monotonic(), len(piece)))
    finally:
        writer.close()
