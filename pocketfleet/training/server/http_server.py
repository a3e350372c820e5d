"""uvicorn around the application: sockets, TLS, and connections that send nothing.

Leans on what uvicorn does not document, tried with 0.49: ``HttpToolsProtocol.transport`` is a connection, and
``on_headers_complete`` is called once a request's headers are whole; ``Server.capture_signals`` is around serving, and
``handle_exit`` begins the orderly end.
"""

import asyncio
import signal
import socket
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
import uvloop
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pocketfleet.training.server.service import Service

__all__ = ["listening_socket", "make_server", "run", "serve"]

# Devices that come together after a round: the kernel's usual limit (net.core.somaxconn of Linux).
_BACKLOG = 4096
# A device checks in again, or sends the next file, sooner than that; uvicorn's own default is 5 s.
_KEEP_ALIVE_S = 30
# In which requests under way end when the service is told to.
_DRAIN_S = 30


T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` on uvloop, which serves about twice as many requests."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that takes connections, so that its port is known before the service is up.

    Raises:
        OSError: the address is taken, or is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


class _Server(uvicorn.Server):
    """Ends without dying of the signal that ended it: what comes after serving is still done."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


async def serve(server: uvicorn.Server, service: Service, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; then requests under way are answered, and the service lets go.

    Raises:
        InputError: the service's state is another experiment's.
    """
    try:
        await service.start()
        await server.serve(sockets=[listening])
    finally:
        await service.stop()


def make_server(
    app: Starlette, *, header_timeout_s: float, certificate: Path | None = None, key: Path | None = None
) -> uvicorn.Server:
    """A server for ``serve``.

    Args:
        app: the application.
        header_timeout_s: in which a new connection must have sent a request's headers.
        certificate: of TLS, with its chain, PEM; ``None``: plain HTTP.
        key: of the certificate.
    """

    class Protocol(HttpToolsProtocol):
        """Cuts off connections whose first request does not come."""

        def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - asyncio's transport
            super().connection_made(transport)
            self._began = False
            self._impatience = asyncio.get_running_loop().call_later(header_timeout_s, self._give_up)

        def connection_lost(self, exc: Exception | None) -> None:
            self._impatience.cancel()
            super().connection_lost(exc)

        def _give_up(self) -> None:
            if not self._began and not self.transport.is_closing():
                self.transport.close()

        def on_headers_complete(self) -> None:
            self._began = True
            super().on_headers_complete()

    config = uvicorn.Config(
        app,
        http=Protocol,
        lifespan="off",
        ws="none",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_DRAIN_S,
        server_header=False,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    server = _Server(config)
    # Streams without an end ask it.
    app.state.is_stopping = lambda: server.should_exit
    return server
