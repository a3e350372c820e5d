"""A service of protocol 1 for tests of devices: real HTTP on a real socket, its answers written down beforehand.

It hands out the assignments that it was given and keeps what devices send. A fault is taken before the answer to a
path: ``cut`` sends so many bytes of a file's answer and drops the connection, ``unavailable`` answers 503.
"""

import hashlib
import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit

from pocketfleet.export.bundle import Bundle
from pocketfleet.export.manifest import FROZEN_FILE, MANIFEST_FILE, WEIGHTS_FILE, file_sha256, program_files
from pocketfleet.training.codec import LosslessCodec
from pocketfleet.training.server.protocol import Assignment, FileEntry, Rule
from pocketfleet.training.update import Update

__all__ = ["Came", "Fault", "SmallService", "work_of"]

RULE = Rule(idle=True, charging=True, unmetered=True, min_battery_ratio=0.3, min_examples=1)


class Fault(NamedTuple):
    kind: str  # cut, unavailable, damaged
    count: float = 0.0  # bytes, or seconds


class Came(NamedTuple):
    """A request, as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections break here on purpose."""


class SmallService:
    """Use as a context manager."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.assignments: deque[Assignment] = deque()
        self.came: list[Came] = []
        self.faults: dict[str, deque[Fault]] = {}
        self.report_codes: deque[str] = deque()  # "" accepts
        self.open: list[int] = []
        self.taken: set[int] = set()
        self.retry_after_s = 0.05
        self.when_empty = "finished"
        self.delay_s = 0.0
        self.lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                pass

            def _any(self) -> None:
                service.answer(self)

            do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815 - http.server's names

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/populations/test"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, data: bytes) -> FileEntry:
        entry = FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        self.files[entry.sha256] = data
        return entry

    def requests(self, start: str) -> list[Came]:
        return [came for came in self.came if came.path.startswith(start)]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        path = parts.path.removeprefix("/v1/populations/test/")
        length = int(handler.headers.get("Content-Length", 0))
        body = handler.rfile.read(length)
        if len(body) < length:
            handler.close_connection = True  # the device's connection broke
            return
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self.lock:
            self.came.append(Came(handler.command, path, dict(parse_qsl(parts.query)), headers, body))
            waiting = self.faults.get(path.partition("/")[0])
            fault = waiting.popleft() if waiting else None
        threading.Event().wait(self.delay_s)
        if fault and fault.kind == "unavailable":
            _send(handler, 503, b"", {"Retry-After": str(fault.count)})
        elif path.startswith("files/"):
            self._file(handler, path.removeprefix("files/"), fault)
        elif fault and fault.kind == "cut":
            handler.close_connection = True
            handler.connection.close()
        else:
            with self.lock:
                status, answer = self._control(path, headers)
            _send(handler, status, json.dumps(answer).encode() if answer else b"")

    def _control(self, path: str, headers: dict[str, str]) -> tuple[int, object]:
        if path == "enrol":
            token = json.loads(self.came[-1].body)["token"]
            if token != "good":
                return 401, _error("wrong_token", "the token is not known")
            return 201, {"device_id": "device-one", "credential": "secret"}
        if headers.get("authorization") != "Bearer secret":
            return 401, _error("wrong_credential", "the credential is not known")
        released = {"version": 0, "weights": {"sha256": "0" * 64, "bytes": 1}}
        if path == "check-in":
            if self.assignments:
                assignment = self.assignments.popleft()
                self.open.append(assignment.assignment_id)
                return 200, {"assignment": assignment.model_dump(), "turned_away": None, "released": released}
            away = {"reason": self.when_empty, "message": "nothing more", "retry_after_s": self.retry_after_s}
            return 200, {"assignment": None, "turned_away": away, "released": released}
        if path == "status":
            values = {"device_id": "device-one", "population": "test", "round": 0, "model_version": 0, "paused": False}
            return 200, {**values, "reports_accepted": 0, "open_assignments": self.open, "released": released}
        if path.startswith("reports/"):
            code = self.report_codes.popleft() if self.report_codes else ""
            if code:
                return 409, _error(code, "it does not count")
            number = int(path.removeprefix("reports/"))
            repeated = number in self.taken
            self.taken.add(number)
            return 200, {"code": "repeated" if repeated else "accepted", "round": 0}
        return 204, None

    def _file(self, handler: BaseHTTPRequestHandler, sha256: str, fault: Fault | None) -> None:
        if sha256 not in self.files:
            _send(handler, 404, json.dumps(_error("no_file", "there is no such file")).encode())
            return
        data = self.files[sha256]
        headers, status, start = {"ETag": f'"{sha256}"'}, 200, 0
        wanted = handler.headers.get("Range")
        if wanted:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                _send(handler, 416, b"")
                return
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            status = 206
        rest = data[start:]
        if fault and fault.kind == "damaged":
            rest = bytes([rest[0] ^ 1]) + rest[1:]
        if fault and fault.kind == "cut":
            handler.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(rest))}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(rest[: int(fault.count)])
            handler.wfile.flush()
            handler.close_connection = True
            handler.connection.close()
            return
        _send(handler, status, rest, headers)


def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    handler.send_response(status)
    for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def _error(code: str, message: str) -> dict[str, dict[str, str]]:
    return {"error": {"code": code, "message": message}}


def work_of(service: SmallService, bundle: Bundle, number: int = 0, **changed: object) -> Assignment:
    """Work on a bundle's first weights, for ONNX: its files put into the service."""

    def entry(path: Path) -> FileEntry:
        return service.add(path.read_bytes())

    names = (MANIFEST_FILE, WEIGHTS_FILE, FROZEN_FILE, *program_files("onnx"))
    weights = bundle.weights()
    like = Update(weights.trainable, weights.buffers)
    values = {
        "assignment_id": number,
        "work": "train",
        "round": number,
        "model_version": 0,
        "deadline_in_s": 600.0,
        "program": "onnx",
        "bundle": {name: entry(bundle.path / name) for name in names if (bundle.path / name).exists()},
        "weights": entry(bundle.path / WEIGHTS_FILE),
        "broadcast": None,
        "algorithm": "fedavg",
        "algorithm_options": {},
        "hyper": dict(bundle.hyper),
        "epochs": 1,
        "steps": 0,
        "batch_size": 8,
        "batch_seed": 12345,
        "codec": "lossless",
        "codec_options": {},
        "codec_seed": 54321,
        "download_bits": 0,
        "update_bytes": LosslessCodec().encoded_bytes(like),
        "partial_work": "report",
        "rule": RULE,
    }
    assert values["weights"].sha256 == file_sha256(bundle.path / WEIGHTS_FILE)
    return Assignment(**{**values, **changed})
