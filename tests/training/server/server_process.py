"""Servers as processes that can be killed, and devices that keep at it whatever happens to them."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import torch
from tiny_service import BASE, CHECK_IN, digest, update_bytes

from pocketfleet.training.draws import draw_key, uniform

__all__ = ["Device", "ServerProcess", "free_port"]

# Importing torch takes seconds on a shared machine.
_START_S = 60.0


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class ServerProcess:
    """``tiny_server.py``, on a port of its own."""

    def __init__(
        self, folder: Path, *, database_url: str = "", patience_s: float = 20.0, tls: tuple[Path, Path] | None = None
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._trusted = ssl.create_default_context(cafile=str(tls[0])) if tls else True
        self._arguments = [str(folder), str(self.port), database_url, str(patience_s), *map(str, tls or ())]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        here = Path(__file__).parent
        log = (self.folder / "server.log").open("ab")
        with contextlib.closing(log):
            self._process = subprocess.Popen(
                [sys.executable, str(here / "tiny_server.py"), *self._arguments],
                stderr=log,
                stdout=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])},
            )
        if wait:
            self.wait_until("readyz")

    def wait_until(self, route: str) -> None:
        until_s = time.monotonic() + _START_S
        while time.monotonic() < until_s:
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "server.log").read_text()[-3000:]
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/{route}", timeout=5.0, verify=self._trusted).status_code == 200:
                    return
            time.sleep(0.05)  # noqa: TID251 - another process is waited for
        raise AssertionError((self.folder / "server.log").read_text()[-3000:])

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def stop(self) -> int:
        if self._process is None or self._process.poll() is not None:
            return 0
        self._process.terminate()
        return self._process.wait(timeout=60.0)


@contextlib.contextmanager
def started(folder: Path, *, patience_s: float = 20.0) -> Iterator[ServerProcess]:
    """A server; it waits so long for a request's headers, twice that for a body."""
    server = ServerProcess(folder, patience_s=patience_s)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Device:
    """Asks one server after another until it is answered; sends what was not acknowledged again.

    ``acknowledged``: the bytes by assignment of what a server said that it counts.
    """

    def __init__(self, urls: Sequence[str], credential: str, number: int) -> None:
        self.urls = list(urls)
        self.headers = {"Authorization": f"Bearer {credential}"}
        self._number = number
        self.acknowledged: dict[int, bytes] = {}
        self.requests = 0

    def body(self, assignment: int) -> bytes:
        """What it learnt: a function of device and assignment."""
        values = uniform(draw_key(1, "update", self._number, assignment), 4) - 0.5
        return update_bytes(*values[:3].tolist(), buffer=float(values[3]))

    async def run(self, client: httpx.AsyncClient, stop: asyncio.Event) -> None:
        while not stop.is_set():
            answer = await self._asked(client, stop, "POST", "check-in", json=CHECK_IN)
            if answer is None:
                return
            if answer["assignment"] is None:
                await asyncio.sleep(answer["turned_away"]["retry_after_s"])
                continue
            await self._report(client, stop, answer["assignment"]["assignment_id"])

    async def _report(self, client: httpx.AsyncClient, stop: asyncio.Event, assignment: int) -> None:
        body = self.body(assignment)
        facts = {"num_examples": 1 + assignment % 5, "steps": 1, "examples_held": 5, "train_loss": 0.5}
        answer = await self._asked(
            client,
            stop,
            "PUT",
            f"reports/{assignment}",
            params=facts,
            content=body,
            headers=self.headers | {"Content-Digest": digest(body)},
        )
        if answer is not None and "code" in answer:
            self.acknowledged[assignment] = body

    async def _asked(
        self, client: httpx.AsyncClient, stop: asyncio.Event, method: str, path: str, **request: object
    ) -> dict[str, object] | None:
        """The answer, whoever gives it; ``None``: it was stopped meanwhile."""
        request = {"headers": self.headers} | request
        while not stop.is_set():
            self.requests += 1
            url = self.urls[self.requests % len(self.urls)]
            try:
                answer = await client.request(method, f"{url}{BASE}/{path}", **request)  # type: ignore[arg-type]
            except httpx.HTTPError:
                await asyncio.sleep(0.05)
                continue
            if answer.status_code in {429, 503}:
                await asyncio.sleep(0.1)
                continue
            if answer.status_code in {400, 408}:
                # What was sent did not come whole.
                continue
            assert answer.status_code in {200, 409}, answer.text
            return dict(answer.json())
        return None


def model_of(body: bytes) -> dict[str, torch.Tensor]:
    from pocketfleet.training.update import tensors_from_bytes

    return tensors_from_bytes(body)
