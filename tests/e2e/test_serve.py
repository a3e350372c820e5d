"""The service from the command line: started, administered, stopped, and refused."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from pocketfleet import Bundle

CHECK_IN = {"protocol": 1, "programs": {"onnx": "1.31.0"}, "codecs": ["lossless"]}


class Serving:
    """``pocketfleet serve`` as a process."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.state = folder / "state"
        program = "from pocketfleet.cli import main; main()"
        command = [sys.executable, "-u", "-c", program, "serve", "boston-two-phones", "--state", str(self.state)]
        self.process = subprocess.Popen(
            [*command, "--port", "0", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.url = ""

    def ready(self) -> "Serving":
        until_s = time.monotonic() + 120.0
        told = self.state / "serving.json"
        while not (told.exists() and json.loads(told.read_text())["pid"] == self.process.pid):
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < until_s
            time.sleep(0.05)  # noqa: TID251 - another process is waited for
        self.url = json.loads(told.read_text())["url"]
        return self

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60.0)
        return self.process.returncode, out, err


@contextlib.contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[Serving]:
    one = Serving(folder, *arguments)
    try:
        yield one.ready()
    finally:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def test_a_service_from_its_start_to_its_second_start(tmp_path: Path, boston_bundle: Bundle, pocketfleet) -> None:
    bundle = ("--set", f"task.bundle='{boston_bundle.path}'")
    with serving(tmp_path, *bundle) as one:
        (token,) = pocketfleet("admin", "token", "--state", one.state).out.split()
        enrolled = httpx.post(f"{one.url}/enrol", json={"token": token, "phone": {"model": "Pixel 8"}}).json()
        headers = {"Authorization": f"Bearer {enrolled['credential']}"}
        work = httpx.post(f"{one.url}/check-in", json=CHECK_IN, headers=headers).json()["assignment"]
        assert (work["program"], work["hyper"], work["batch_size"]) == ("onnx", {"learning_rate": 0.001}, 8)
        for name, entry in work["bundle"].items():
            content = httpx.get(f"{one.url}/files/{entry['sha256']}", headers=headers).content
            assert content == (one.state / "bundle" / name).read_bytes()
        assert pocketfleet("admin", "pause", "--state", one.state).out.startswith("paused")
        (device,) = json.loads(pocketfleet("list", "devices", "--state", one.state, "--json").out)
        assert (device["device_id"], device["phone"], device["state"]) == (enrolled["device_id"], "Pixel 8", "enrolled")
        code, out, err = one.stop()
        assert code == 0, err
        assert out.startswith(f"serving {one.url}\ntokens for devices: pocketfleet admin token --state")
        events = [json.loads(line)["event"] for line in err.splitlines()]
        assert events[0] == "leads"
        assert "internal_error" not in events
    # What was paused stays so, and who was enrolled too.
    with serving(tmp_path, *bundle) as again:
        answer = httpx.post(f"{again.url}/check-in", json=CHECK_IN, headers=headers).json()
        assert answer["turned_away"]["reason"] == "paused"
        code, _, err = again.stop(signal.SIGINT)
        assert code == 0, err
    (model,) = json.loads(pocketfleet("list", "models", "--state", tmp_path / "state", "--json").out)
    assert (model["version"], model["in_use"]) == (0, True)
    assert json.loads(pocketfleet("list", "rounds", "--state", tmp_path / "state", "--json").out) == []
    other = pocketfleet(
        "serve", "boston-two-phones", "--state", tmp_path / "state", "--set", "rounds.cohort=1", *bundle
    )
    assert other.code == 2
    assert "began with another fingerprint" in other.err


def test_two_processes_do_not_serve_one_folder(tmp_path: Path, boston_bundle: Bundle) -> None:
    bundle = ("--set", f"task.bundle='{boston_bundle.path}'")
    with serving(tmp_path, *bundle) as first:
        second = Serving(tmp_path, *bundle)
        try:
            until_s = time.monotonic() + 60.0
            line = second.process.stdout.readline() if time.monotonic() < until_s else ""
            assert line == "waiting for the process that serves this state to end\n"
            assert httpx.get(f"{first.url.partition('/v1')[0]}/readyz").status_code == 200
            assert first.stop()[0] == 0
            assert second.process.stdout.readline().startswith("serving http://127.0.0.1:")
            assert second.stop()[0] == 0
        finally:
            second.process.kill()
            second.process.communicate()


def test_what_cannot_be_served_is_told(tmp_path: Path, pocketfleet) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments, message in (
            (["--tls-cert", "none.pem"], "--tls-cert none.pem is no file"),
            (["--database", "postgresql+psycopg://nobody@127.0.0.1:1/none"], "cannot open the database"),
            (["--database", "no url"], "cannot open the database no url"),
            (["--port", str(port)], f"cannot listen on 127.0.0.1:{port}"),
            (["--host", "192.0.2.1", "--port", "0"], "cannot listen on 192.0.2.1:0"),
            (["--set", "rounds.selection=oort", "--set", "rounds.selection_window_s=10"], 'rounds.selection "oort"'),
            (["--set", "fleet.attacks=[{kind='nan', ratio=0.5}]"], "fleet.attacks is of simulations"),
            (["--set", "service.population='a b'"], "service.population"),
        ):
            state = tmp_path / "state"
            found = pocketfleet("serve", "boston-two-phones", "--state", state, "--port", "0", *arguments)
            assert found.code == 2, found.err
            assert message in found.err
    certificate = tmp_path / "cert.pem"
    certificate.write_text("none")
    found = pocketfleet("serve", "boston-two-phones", "--state", tmp_path / "state", "--tls-cert", certificate)
    assert "TLS takes --tls-cert and --tls-key together" in found.err


def test_administering_what_is_no_service_is_told(tmp_path: Path, pocketfleet) -> None:
    for arguments in (["token"], ["pause"], ["release", "1"], ["revoke", "abc"]):
        found = pocketfleet("admin", *arguments, "--state", tmp_path)
        assert found.code == 2
        assert "is no service's state, it holds no service.sqlite" in found.err
    assert "list devices is of a service: name its --state" in pocketfleet("list", "devices").err
    assert "leave --state and --database out" in pocketfleet("list", "phones", "--state", tmp_path).err
