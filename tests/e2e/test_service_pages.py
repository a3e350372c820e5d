"""Every command in docs/service.md runs, in its order, with two devices; but for those that need what is not here."""

import hashlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch

from pocketfleet.serving_file import read_serving
from pocketfleet.training.codec import LosslessCodec
from pocketfleet.training.server.service_metrics import ServiceMetrics
from pocketfleet.training.update import Update, tensors_from_bytes

ROOT = Path(__file__).parents[2]
# A certificate, a database server, another package: not of this machine.
ELSEWHERE = ("--tls-cert", "--database", "pip install")
# Importing torch and exporting a bundle takes that long on a shared machine.
_START_S = 180.0


def commands() -> list[list[str]]:
    text = (ROOT / "docs" / "service.md").read_text()
    blocks = re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line) for line in lines if not any(word in line for word in ELSEWHERE)]


def program(folder: Path) -> list[str]:
    script = folder / "program.py"
    script.write_text("from pocketfleet.cli import main\nif __name__ == '__main__':\n    main()\n")
    return [sys.executable, str(script)]


@contextmanager
def serving(call: list[str], place: Path) -> Iterator[str]:
    """The population's URL while the command runs."""
    with (place / "service.log").open("ab") as log:
        process = subprocess.Popen([*call, "--port", "0"], cwd=place, stdout=log, stderr=log, env=environment())
    try:
        until_s = time.monotonic() + _START_S
        while (found := read_serving(place / "state")) is None:
            assert process.poll() is None, (place / "service.log").read_text()
            assert time.monotonic() < until_s
            time.sleep(0.1)  # noqa: TID251 - another process is waited for
        assert found.pid == process.pid
        yield found.url
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60.0) == 0, (place / "service.log").read_text()
    assert not (place / "state" / "serving.json").exists()


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def take_part(url: str, tokens: list[str]) -> None:
    """A round: every device reports that nothing is to be changed."""
    for token in tokens:
        credential = httpx.post(f"{url}/enrol", json={"token": token}).json()["credential"]
        headers = {"Authorization": f"Bearer {credential}"}
        ask = {"protocol": 1, "programs": {"executorch": "1.5", "onnx": "1.31"}, "codecs": ["lossless"]}
        work = httpx.post(f"{url}/check-in", json=ask, headers=headers).json()["assignment"]
        weights = tensors_from_bytes(httpx.get(f"{url}/files/{work['weights']['sha256']}", headers=headers).content)
        body = LosslessCodec().encode(Update({name: torch.zeros_like(value) for name, value in weights.items()}, {}))
        answer = httpx.put(
            f"{url}/reports/{work['assignment_id']}",
            params={"num_examples": 1, "steps": 1, "examples_held": 5, "train_loss": 1.0},
            content=body,
            headers=headers | {"Content-Digest": f"sha-256=:{b64encode(hashlib.sha256(body).digest()).decode()}:"},
        )
        assert answer.json() == {"code": "accepted", "round": 0}


def test_the_page_runs_as_written(tmp_path: Path, pocketfleet: Callable[..., Any]) -> None:
    calls, ran, place = commands(), 0, tmp_path
    starts = [number for number, call in enumerate(calls) if call[1] == "serve"]
    assert starts[0] == 0
    printed: dict[str, str] = {}
    for start, stop in zip(starts, [*starts[1:], len(calls)], strict=True):
        with serving([*program(tmp_path), *calls[start][1:]], place) as url:
            for call in calls[start + 1 : stop]:
                assert call[0] == "pocketfleet"
                done = pocketfleet(*call[1:])
                assert done.code == 0, f"{shlex.join(call)}\n{done.err}"
                printed[" ".join(call[1:3])] = done.out
                ran += 1
                if call[1:3] == ["admin", "token"]:
                    take_part(url, done.out.split())
    assert ran == len(calls) - len(starts)
    assert ran >= 10
    assert "1 rounds, 2 devices" in printed["admin export"]


def test_the_page_tells_every_metric_and_every_line_of_the_log() -> None:
    page = (ROOT / "docs" / "service.md").read_text()
    told = re.findall(r"^# TYPE (\w+) (counter|gauge|histogram)$", ServiceMetrics().text().decode(), re.MULTILINE)
    names = {name for name, _ in told if not name.endswith("_created")}
    assert len(names) >= 9
    for name in names:
        assert f"`{name}" in page, name
    server = ROOT / "pocketfleet" / "training" / "server"
    events = {word for file in server.glob("*.py") for word in re.findall(r'log\.write\(\s*"(\w+)"', file.read_text())}
    assert len(events) >= 8
    for event in events:
        assert f"`{event}`" in page, event
