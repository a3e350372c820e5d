"""A phone's link for an HTTP client: its bandwidth, latency and losses, on the phone's clock.

Rules:

1. The requests of one transfer share one opening; those that follow the first are asked for without waiting, as over
   one connection of HTTP/2. Of what moves, the bodies count: headers do not, as in the simulator. The opening's last
   round trip is that of the first request and its answer: what host and service need for them is a part of it.
2. Bytes leave and arrive no faster than the plan's rates. What the host loses in between is caught up on, but for no
   more than ``_CREDIT_S`` of the wall.
3. Where the plan cuts, the connection breaks; until the outage is over a new one waits, and then opens anew. The count
   of bytes goes on over cuts: what is moved twice counts twice.
4. Nothing moves after ``until_s``: then the device gives up, or its phone left the network.
5. Buffers of the host's sockets are kept small, so that what is measured between device and service is the link too.
"""

import math
import socket
from collections.abc import Callable, Iterator

import httpx

from pocketfleet.device_sim.link_plan import LinkPlan
from pocketfleet.device_sim.phone_clock import PhoneClock

__all__ = ["Link", "ShapedTransport"]

# Timers and calls of a busy host are late by milliseconds, not by more.
_CREDIT_S = 0.02
# Bodies are sent in pieces of this size: 13 ms at the 10 Mbit/s of a slow home's uplink.
_PIECE_BYTES = 16 * 1024
# Linux doubles what it is asked for (socket(7)); the kernel's own least is lower.
_SOCKET_BYTES = 32 * 1024


class Link:
    """The radio of one device; one transfer at a time.

    Attributes:
        down_bytes, up_bytes: moved since the start of the process.
    """

    def __init__(self, clock: PhoneClock) -> None:
        self._clock = clock
        self._plan: LinkPlan | None = None
        self._until_s = math.inf
        self._owed_s = self._answer_s = 0.0
        self._begins_s = self._down_until_s = -math.inf
        self._free_s = -math.inf
        self._moved = 0
        self._cut = 0
        self._breaks_after = math.inf
        self.down_bytes = 0
        self.up_bytes = 0

    def use(
        self,
        plan: LinkPlan | None,
        *,
        from_s: float = -math.inf,
        until_s: float = math.inf,
        breaks_after: float = math.inf,
    ) -> None:
        """Begin a transfer: what follows goes by this plan, without one unhindered.

        Args:
            plan: of the transfer.
            from_s: when the phone began it, which may be just over; at the first request, if left out.
            until_s: see rule 4.
            breaks_after: bytes after which the connection breaks once, beside the plan's losses; a new one may come at
                once.
        """
        self._plan, self._until_s, self._breaks_after = plan, until_s, breaks_after
        self._owed_s = plan.opens_s if plan else 0.0
        self._begins_s, self._down_until_s, self._free_s = from_s, -math.inf, -math.inf
        self._moved, self._cut = 0, 0

    def open(self) -> None:
        """A request is about to be sent.

        Raises:
            httpx.ConnectError: there is no network any more.
        """
        begins_s = max(self._begins_s, self._down_until_s)
        self._begins_s = self._down_until_s = -math.inf
        self._wait_until(begins_s, httpx.ConnectError)
        if begins_s == -math.inf:
            begins_s = self._clock.now_s()
        owed_s, self._owed_s = self._owed_s, 0.0
        self._answer_s = min(self._plan.latency_s, owed_s) if self._plan else 0.0
        self._free_s = max(self._free_s, begins_s + owed_s - self._answer_s)
        self._wait_until(self._free_s, httpx.ConnectError)

    def answered(self) -> None:
        """The head of an answer has arrived.

        Raises:
            httpx.ReadError: the link is lost.
        """
        self._free_s += self._answer_s
        self._wait_until(self._free_s, httpx.ReadError)

    def sent(self, count: int) -> None:
        """So many bytes are about to leave.

        Raises:
            httpx.WriteError: the link is lost.
        """
        self.up_bytes += count
        self._pass(count, self._plan.up_bits_per_s if self._plan else math.inf, httpx.WriteError)

    def received(self, count: int) -> None:
        """So many bytes have arrived.

        Raises:
            httpx.ReadError: the link is lost.
        """
        self.down_bytes += count
        self._pass(count, self._plan.down_bits_per_s if self._plan else math.inf, httpx.ReadError)

    def _pass(self, count: int, bits_per_s: float, lost: type[httpx.TransportError]) -> None:
        now_s = self._clock.now_s()
        self._free_s = max(self._free_s, now_s - _CREDIT_S * self._clock.speed) + count * 8.0 / bits_per_s
        self._moved += count
        self._wait_until(self._free_s, lost)
        cuts = self._plan.cuts if self._plan else ()
        if self._cut < len(cuts) and self._moved >= cuts[self._cut].after_bytes:
            self._down_until_s = self._clock.now_s() + cuts[self._cut].outage_s
            self._owed_s = self._plan.reopens_s if self._plan else 0.0
            self._cut += 1
            raise lost("the link was lost")
        if self._moved >= self._breaks_after:
            self._breaks_after = math.inf
            raise lost("the connection broke")

    def _wait_until(self, at_s: float, lost: type[httpx.TransportError]) -> None:
        self._clock.wait_until(min(at_s, self._until_s))
        if self._clock.now_s() >= self._until_s:
            raise lost("there is no network any more")


class ShapedTransport(httpx.BaseTransport):
    """Sends requests over a link.

    Args:
        link: whose rates hold.
        inner: what sends them; a client of HTTP/1.1 with small buffers if left out.
    """

    def __init__(self, link: Link, inner: httpx.BaseTransport | None = None) -> None:
        self._link = link
        self._inner = inner or httpx.HTTPTransport(
            socket_options=[
                (socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES),
                (socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES),
            ]
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """As httpx asks of a transport."""
        self._link.open()
        body = request.stream
        assert isinstance(body, httpx.SyncByteStream)
        response = self._inner.handle_request(
            httpx.Request(
                request.method,
                request.url,
                headers=request.headers,
                stream=_Sent(body, self._link.sent),
                extensions=request.extensions,
            )
        )
        answer = response.stream
        assert isinstance(answer, httpx.SyncByteStream)
        try:
            self._link.answered()
        except BaseException:
            answer.close()
            raise
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_Received(answer, self._link.received),
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


class _Stream(httpx.SyncByteStream):
    def __init__(self, inner: httpx.SyncByteStream, count: Callable[[int], None]) -> None:
        self._inner, self._count = inner, count

    def close(self) -> None:
        self._inner.close()


class _Sent(_Stream):
    """Bytes leave in small pieces, each after its time."""

    def __iter__(self) -> Iterator[bytes]:
        for part in self._inner:
            for start in range(0, len(part), _PIECE_BYTES):
                piece = part[start : start + _PIECE_BYTES]
                self._count(len(piece))
                yield piece


class _Received(_Stream):
    """Bytes are handed on once they have arrived."""

    def __iter__(self) -> Iterator[bytes]:
        for part in self._inner:
            self._count(len(part))
            yield part
