"""A proxy that forwards HTTP requests badly: late, twice, half, or without ever telling the answer."""

import asyncio
import contextlib
from collections import Counter

from pocketfleet.training.draws import draw_key, uniform

__all__ = ["FATES", "FaultyProxy"]

# Of a request; all other requests pass.
FATES = ("lost", "truncated", "answer lost", "answer truncated", "twice", "late")
_FATE_RATIO = 0.4


class FaultyProxy:
    """Listens on a port of its own; ``fates`` counts what it did.

    Requests of different connections overtake one another where one of them is late.
    """

    def __init__(self, port: int, *, seed: int) -> None:
        self._port = port
        self._seed = seed
        self._requests = 0
        self.fates: Counter[str] = Counter()
        self.url = ""
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "FaultyProxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """To be left after those that talk to it: it ends once their connections have."""
        assert self._server is not None
        self._server.close()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._forward(await _message(reader), writer):
                pass
        writer.close()

    async def _forward(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        self._requests += 1
        draws = uniform(draw_key(self._seed, "fate", self._requests), 3)
        fate = FATES[int(draws[1] * len(FATES))] if draws[0] < _FATE_RATIO else "pass"
        self.fates[fate] += 1
        if fate == "lost":
            return False
        if fate == "late":
            await asyncio.sleep(0.5 * draws[2])
        if fate == "truncated":
            await self._upstream(request[: int(len(request) * draws[2])], whole=False)
            return False
        if fate == "twice":
            # The same bytes on two connections at a time.
            answer, _ = await asyncio.gather(self._upstream(request), self._upstream(request))
        else:
            answer = await self._upstream(request)
        if fate == "answer lost":
            return False
        writer.write(answer[: int(len(answer) * draws[2])] if fate == "answer truncated" else answer)
        await writer.drain()
        return fate != "answer truncated"

    async def _upstream(self, request: bytes, *, whole: bool = True) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(request)
            await writer.drain()
            return await _message(reader) if whole else b""
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        finally:
            writer.close()


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
    return head + await reader.readexactly(length)
