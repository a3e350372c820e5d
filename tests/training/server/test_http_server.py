"""Real sockets: clients that lie about lengths, that send nothing, that send slowly; and TLS."""

import asyncio
import socket
import ssl
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from server_process import ServerProcess, started
from tiny_service import BASE, CHECK_IN, digest, update_bytes

from pocketfleet.training.server.administration import issue_tokens
from pocketfleet.training.server.http_server import listening_socket


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> ServerProcess:
    with started(tmp_path_factory.mktemp("server"), patience_s=1.0) as one:
        yield one


def credential(server: ServerProcess) -> str:
    (token,) = issue_tokens(server.folder / "state")
    return str(httpx.post(f"{server.url}{BASE}/enrol", json={"token": token}).json()["credential"])


def raw(server: ServerProcess, data: bytes, *, timeout_s: float = 10.0, close: bool = False) -> bytes:
    """What comes back until the server closes, or says all that it has to say."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout_s) as connection:
        connection.sendall(data)
        if close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while b"\r\n\r\n" not in answer or b"}" not in answer:
            piece = connection.recv(65536)
            if not piece:
                break
            answer += piece
        return answer


def test_a_connection_that_asks_nothing_is_cut_off(server: ServerProcess) -> None:
    began_s = time.monotonic()
    assert raw(server, b"GET /healthz HT") == b""
    # The tiny server waits a second.
    assert 0.5 < time.monotonic() - began_s < 5.0


def test_a_body_that_comes_too_slowly_is_refused(server: ServerProcess) -> None:
    body = update_bytes(1.0, 2.0, 3.0)
    owner = credential(server)
    headers = {"Authorization": f"Bearer {owner}"}
    work = httpx.post(f"{server.url}{BASE}/check-in", json=CHECK_IN, headers=headers).json()["assignment"]
    head = (
        f"PUT {BASE}/reports/{work['assignment_id']}?num_examples=1&steps=1&examples_held=1&train_loss=0 HTTP/1.1\r\n"
        f"Host: x\r\nAuthorization: Bearer {owner}\r\nContent-Length: {len(body)}\r\n"
        f"Content-Digest: {digest(body)}\r\n\r\n"
    ).encode()
    answer = raw(server, head + body[:10])
    assert b" 408 " in answer.partition(b"\r\n")[0]
    assert b"too_slow" in answer
    # One that ends early is not kept either, and the whole one counts.
    raw(server, head + body[:10], close=True)
    updates = server.folder / "state" / "updates"
    until_s = time.monotonic() + 10.0
    while list(updates.glob(".*.partial")):
        assert time.monotonic() < until_s, list(updates.iterdir())
        time.sleep(0.02)  # noqa: TID251 - another process is waited for
    assert b'"accepted"' in raw(server, head + body)


def test_others_do_not_wait_for_slow_clients(server: ServerProcess) -> None:
    headers = {"Authorization": f"Bearer {credential(server)}"}

    async def drip(stop: asyncio.Event) -> int:
        """A request's headers, byte after byte, on ever new connections."""
        cut = 0
        while not stop.is_set():
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            try:
                for byte in f"POST {BASE}/check-in HTTP/1.1\r\nHost: x\r\n".encode():
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.2)
            except ConnectionError:
                cut += 1
            writer.close()
        return cut

    async def seconds(client: httpx.AsyncClient) -> list[float]:
        found = []
        for _ in range(100):
            began_s = time.perf_counter()
            answer = await client.get(f"{server.url}{BASE}/status", headers=headers)
            assert answer.status_code == 200
            found.append(time.perf_counter() - began_s)
        return sorted(found)

    async def compare() -> tuple[list[float], list[float]]:
        async with httpx.AsyncClient(timeout=30.0) as client:
            await seconds(client)
            alone = await seconds(client)
            stop = asyncio.Event()
            slow = [asyncio.create_task(drip(stop)) for _ in range(200)]
            await asyncio.sleep(1.0)
            beside = await seconds(client)
            stop.set()
            await asyncio.gather(*slow)
            return alone, beside

    alone, beside = asyncio.run(compare())
    assert beside[-2] <= max(2.0 * alone[-2], 0.1)


def test_tls(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    name = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    command = ["openssl", *request.split(), "-addext", name, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    server = ServerProcess(tmp_path, tls=(certificate, key))
    server.start(wait=False)
    try:
        server.wait_until("readyz")
        trusting = ssl.create_default_context(cafile=str(certificate))
        assert httpx.get(f"{server.url}/healthz", verify=trusting).text == "ok\n"
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            httpx.get(f"{server.url}/healthz")
        with pytest.raises(httpx.HTTPError):
            httpx.get(server.url.replace("https", "http") + "/healthz")
    finally:
        server.stop()


def test_a_taken_address_is_an_error() -> None:
    first = listening_socket("127.0.0.1", 0)
    with first, pytest.raises(OSError, match="in use"):
        listening_socket("127.0.0.1", first.getsockname()[1])
