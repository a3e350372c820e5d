"""Who may call what, and what is refused: nothing of it is stored, and nothing of it is our failure."""

import asyncio
import base64
import hashlib
import json
import struct
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import sqlalchemy as sa
import torch
from tiny_service import BASE, CHECK_IN, canonical, digest, running, tiny_plan, update_bytes

from pocketfleet.training.server import administration
from pocketfleet.training.server.database import AUDIT, DECISIONS, REPORTS, open_database
from pocketfleet.training.server.routes import ROUTES, Route
from pocketfleet.training.server.service_plan import Limits

# What each kind of report was answered: status, error, and the files that it left.
Refusals = dict[str, tuple[int, dict[str, Any], list[str]]]
GOOD = update_bytes(1.0, 2.0, 3.0)
FACTS: dict[str, Any] = {"num_examples": 4, "steps": 1, "examples_held": 5, "train_loss": 0.5}


Result = TypeVar("Result")


def of(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(work)


# Who may


def request_of(route: Route, assignment: int, sha256: str) -> dict[str, Any]:
    """A request that is granted to those who may."""
    path = route.path.replace("{sha256}", sha256).replace("{assignment_id}", str(assignment)).replace("{stage}", "1")
    path = path.replace("{evaluation_id}", "0")
    bodies: dict[str, dict[str, Any]] = {
        "enrol": {"json": {"token": "none"}},
        "check_in": {"json": CHECK_IN},
        "report": {"params": FACTS, "content": GOOD, "headers": {"Content-Digest": digest(GOOD)}},
        "evaluation": {"json": {"num_held_out": 4, "tried": 0.5, "released": 1.0}},
        "benchmark": {"json": {"program": "onnx", "batch_size": 8, "median_s": 0.01, "repeats": 5}},
        "live_events": {"params": {"seconds": 0}},
    }
    url = path if path.startswith("/") else f"{BASE}/{path}"
    return {"method": route.method, "url": url, "headers": {}} | bodies.get(route.name, {})


async def status_with(client: httpx.AsyncClient, request: dict[str, Any], credential: str | None) -> int:
    headers = dict(request["headers"])
    if credential is not None:
        headers["Authorization"] = f"Bearer {credential}"
    answer = await client.request(**(request | {"headers": headers}))
    if answer.status_code >= 400 and answer.headers["content-type"] == "application/json":
        assert set(answer.json()["error"]) == {"code", "message"}
    return answer.status_code


def test_nobody_gets_what_is_not_theirs(tmp_path: Path) -> None:
    limits = Limits(device_requests_per_s=0.0, address_failures_per_s=0.0)
    rows: dict[str, dict[str, int]] = {}

    async def ask() -> None:
        async with running(tiny_plan(tmp_path / "plan", limits=limits), tmp_path / "state") as run:
            administrator = administration.new_admin_credential(run.folder)
            owner, other, revoked, left = [await run.phone() for _ in range(4)]
            work = await owner.assigned()
            administration.revoke(run.folder, revoked.device_id)
            await run.client.post(f"{BASE}/leave", headers=left.headers)
            for _ in range(300):
                seen = await run.client.get(f"{BASE}/status", headers=revoked.headers)
                if seen.status_code == 403:
                    break
                await asyncio.sleep(0.01)
            forged = f"{owner.device_id}.{other.credential.partition('.')[2]}"
            callers = {
                "none": None,
                "wrong": "abc.def",
                "forged": forged,
                "revoked": revoked.credential,
                "left": left.credential,
                "administrator": administrator,
                "device": owner.credential,
            }
            for route in ROUTES:
                if route.name in {"leave", "forget"}:
                    continue  # a granted one ends the caller: asked at the end
                request = request_of(route, work["assignment_id"], work["weights"]["sha256"])
                rows[route.name] = {
                    name: await status_with(run.client, request, credential) for name, credential in callers.items()
                }
            report = request_of(next(one for one in ROUTES if one.name == "report"), work["assignment_id"], "")
            rows["report"]["another device"] = await status_with(run.client, report, other.credential)
            for name in ("leave", "forget"):
                request = request_of(next(one for one in ROUTES if one.name == name), 0, "")
                rows[name] = {
                    caller: await status_with(run.client, request, credential)
                    for caller, credential in callers.items()
                    if caller != "device"
                }

    of(ask())
    refused = {"none": 401, "wrong": 401, "forged": 401, "revoked": 403, "left": 403, "administrator": 401}
    for route in ROUTES:
        found = rows[route.name]
        if route.who == "device":
            assert {name: found[name] for name in refused} == refused, route.name
        elif route.who == "administrator":
            assert {name: status for name, status in found.items() if name != "administrator"} == dict.fromkeys(
                ("none", "wrong", "forged", "revoked", "left", "device"), 401
            )
            assert found["administrator"] == 200
        elif route.name == "enrol":
            assert set(found.values()) == {401}  # the token is none
        else:
            assert set(found.values()) == {200}, route.name
    assert rows["report"]["another device"] == 403
    granted = {name: row["device"] for name, row in rows.items() if "device" in row}
    assert {name: granted[name] for name in ("check_in", "file", "report", "status", "benchmark", "stage")} == {
        "check_in": 200,
        "file": 200,
        # It has checked in again since, and lost the assignment.
        "report": 409,
        "status": 200,
        "benchmark": 204,
        "stage": 409,
    }


# Reports that are none

Sent = dict[str, Any]


def sent(body: bytes = GOOD, *, headers: dict[str, str] | None = None, **facts: object) -> Sent:
    return {"body": body, "headers": headers or {}, "facts": facts}


def tensors(**values: torch.Tensor) -> bytes:
    return canonical(**values)


def with_header(header: object, *, length: int | None = None, total: int = len(GOOD)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = struct.pack("<Q", len(text) if length is None else length) + text
    return (body + bytes(total))[:total]


def entry(name: str = "w", **changed: object) -> dict[str, Any]:
    good = {
        "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "w": {"dtype": "F32", "shape": [3], "data_offsets": [4, 16]},
    }
    return good | {name: good[name] | changed}


MALFORMED: dict[str, Sent] = {
    "empty": sent(b""),
    "truncated": sent(GOOD[:-1]),
    "one byte more": sent(GOOD + b"\0"),
    "twice": sent(GOOD * 2),
    "zeros": sent(bytes(len(GOOD))),
    "text": sent(b"x" * len(GOOD)),
    "a pickle": sent((b"\x80\x05cposix\nsystem\n(S'true'\ntR." + bytes(len(GOOD)))[: len(GOOD)]),
    "a zip bomb's beginning": sent((b"PK\x03\x04" + bytes(len(GOOD)))[: len(GOOD)]),
    "gzip": sent((b"\x1f\x8b\x08" + bytes(len(GOOD)))[: len(GOOD)]),
    "header length of 2**63": sent(with_header(entry(), length=2**63)),
    "header length of 100 MB": sent(with_header(entry(), length=100_000_000)),
    "header length of zero": sent(with_header(entry(), length=0)),
    "header is no JSON": sent(with_header(b"{" * 50)),
    "header is a list": sent(with_header([1, 2])),
    "header is deep": sent(with_header(b"[" * 100)),
    "header is no UTF-8": sent(with_header(b"\xff" * 60)),
    "offsets beyond the end": sent(with_header(entry(data_offsets=[4, 1 << 40]))),
    "offsets overlap": sent(with_header(entry(data_offsets=[0, 12]))),
    "offsets backwards": sent(with_header(entry(data_offsets=[16, 4]))),
    "negative offset": sent(with_header(entry(data_offsets=[-4, 8]))),
    "negative shape": sent(with_header(entry(shape=[-3]))),
    "shape of 2**62": sent(with_header(entry(shape=[2**62, 4]))),
    "unknown type": sent(with_header(entry(dtype="F128"))),
    "another type": sent(tensors(w=torch.zeros(3, dtype=torch.int32), b=torch.zeros(1))),
    "half precision": sent(tensors(w=torch.zeros(6, dtype=torch.float16), b=torch.zeros(1))),
    "another shape": sent(tensors(w=torch.zeros(1, 3), b=torch.zeros(1))),
    "more values": sent(tensors(w=torch.zeros(4), b=torch.zeros(1))),
    "a tensor is missing": sent(tensors(w=torch.zeros(3))),
    "a tensor of another name": sent(tensors(v=torch.zeros(3), b=torch.zeros(1))),
    "a tensor too many": sent(tensors(w=torch.zeros(3), b=torch.zeros(1), c=torch.zeros(1))),
    "NaN": sent(update_bytes(1.0, float("nan"), 3.0)),
    "infinite": sent(update_bytes(1.0, float("-inf"), 3.0)),
    "NaN in a buffer": sent(update_bytes(1.0, 2.0, 3.0, buffer=float("nan"))),
    "too far": sent(update_bytes(1e6, 0.0, 0.0)),
    "wrong hash": sent(headers={"Content-Digest": digest(b"other")}),
    "no hash": sent(headers={"Content-Digest": ""}),
    "hash of another kind": sent(
        headers={"Content-Digest": f"md5=:{base64.b64encode(hashlib.md5(GOOD).digest()).decode()}:"}
    ),
    "hash is no base64": sent(headers={"Content-Digest": f"sha-256=:{'=' * 44}:"}),
    "lying length, less": sent(headers={"Content-Length": str(len(GOOD) - 1)}),
    "lying length, more": sent(headers={"Content-Length": str(len(GOOD) + 1)}),
    "length of 2**80": sent(headers={"Content-Length": str(2**80)}),
    "length is no number": sent(headers={"Content-Length": "many"}),
    "negative length": sent(headers={"Content-Length": "-1"}),
    "no examples": sent(num_examples=0),
    "negative examples": sent(num_examples=-4),
    "examples beyond 64 bits": sent(num_examples=2**70),
    "examples are text": sent(num_examples="many"),
    "more examples than its steps hold": sent(num_examples=9, steps=1),
    "no steps": sent(steps=0),
    "facts are missing": sent(train_loss=None),
    "loss is NaN": sent(train_loss="nan"),
    "loss is infinite": sent(train_loss="inf"),
}


def test_there_are_enough_kinds_of_malformed_reports() -> None:
    assert len(MALFORMED) >= 40


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Refusals:
    """What each kind was answered, and which files it left."""
    folder = tmp_path_factory.mktemp("malformed")
    found = {}
    limits = Limits(device_requests_per_s=0.0, max_update_norm=100.0)

    async def ask() -> None:
        async with running(tiny_plan(folder / "plan", limits=limits), folder / "state") as run:
            phone = await run.phone()
            work = await phone.assigned()
            for name, one in MALFORMED.items():
                answer = await phone.report(work["assignment_id"], one["body"], headers=one["headers"], **one["facts"])
                left = [file.name for file in (folder / "state" / "updates").iterdir()]
                found[name] = (answer.status_code, answer.json()["error"], left)
            # The same assignment still takes the report that it was for.
            answer = await phone.report(work["assignment_id"], GOOD)
            found["good"] = (answer.status_code, {"code": answer.json()["code"], "message": ""}, [])

    of(ask())
    database = open_database(folder / "state")
    with database.connect() as connection:
        reported = connection.execute(sa.select(DECISIONS.c.code).where(DECISIONS.c.kind == "report")).scalars().all()
        assert reported == [0]
        assert connection.execute(sa.select(sa.func.count()).select_from(REPORTS)).scalar_one() == 1
    database.dispose()
    return found


@pytest.mark.parametrize("kind", list(MALFORMED))
def test_a_malformed_report_is_refused_with_a_reason_and_nothing_stored(kind: str, refusals: Refusals) -> None:
    status, error, left = refusals[kind]
    assert 400 <= status < 500, error
    assert len(error["message"]) > 10
    assert left == []


def test_after_all_that_the_report_itself_counts(refusals: Refusals) -> None:
    assert refusals["good"][:2] == (200, {"code": "accepted", "message": ""})


def test_a_replay_after_the_close_is_refused(tmp_path: Path) -> None:
    async def ask() -> None:
        async with running(tiny_plan(tmp_path / "plan"), tmp_path / "state") as run:
            phones = [await run.phone() for _ in range(3)]
            work = [await phone.assigned() for phone in phones]
            for phone, one in zip(phones[:2], work, strict=False):
                await phone.report(one["assignment_id"], GOOD)
            await run.version(1)
            late = await phones[2].report(work[2]["assignment_id"], GOOD)
            assert (late.status_code, late.json()["error"]["code"]) == (409, "late")
            unknown = await phones[2].report(99, GOOD)
            assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown")
            for path in ("-1", "1e3", "٣", "9" * 40, "..%2f..%2fetc%2fpasswd"):
                answer = await run.client.put(f"{BASE}/reports/{path}", headers=phones[2].headers, content=GOOD)
                assert answer.status_code in {404, 422}, path

    of(ask())


# Files


def test_files_are_immutable_and_come_in_ranges(tmp_path: Path) -> None:
    async def ask() -> None:
        async with running(tiny_plan(tmp_path / "plan"), tmp_path / "state") as run:
            phone = await run.phone()
            work = await phone.assigned()
            sha256 = work["weights"]["sha256"]
            url = f"{BASE}/files/{sha256}"
            whole = await run.client.get(url, headers=phone.headers)
            assert whole.headers["etag"] == f'"{sha256}"'
            assert "immutable" in whole.headers["cache-control"]
            assert len(whole.content) == work["weights"]["bytes"]
            part = await run.client.get(url, headers=phone.headers | {"Range": "bytes=10-19"})
            assert (part.status_code, part.content) == (206, whole.content[10:20])
            rest = {"Range": "bytes=20-", "If-Range": f'"{sha256}"'}
            answer = await run.client.get(url, headers=phone.headers | rest)
            assert (answer.status_code, answer.content) == (206, whole.content[20:])
            same = await run.client.get(url, headers=phone.headers | {"If-None-Match": f'"{sha256}"'})
            assert (same.status_code, same.content) == (304, b"")
            beyond = await run.client.get(url, headers=phone.headers | {"Range": "bytes=100000-"})
            assert beyond.status_code == 416
            # No file but those, however it is asked for.
            for name in ("0" * 64, "../service.sqlite", "..%2fservice.sqlite", sha256.upper(), "%00"):
                answer = await run.client.get(f"{BASE}/files/{name}", headers=phone.headers)
                assert answer.status_code == 404, name

    of(ask())


# Messages


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "the body"),
        (b"{", "the body"),
        (b"[]", "the body"),
        (b"null", "the body"),
        (b"\xff\xfe", "the body"),
        (b"{}", "protocol"),
        (b'{"protocol": 1, "codecs": ["lossless"]}', "programs"),
        (b'{"protocol": "1", "programs": {"onnx": ""}, "codecs": ["lossless"]}', "protocol"),
        (b'{"protocol": 1, "programs": {}, "codecs": ["lossless"]}', "programs"),
        (b'{"protocol": 1, "programs": {"onnx": 1}, "codecs": ["lossless"]}', "programs"),
        (b'{"protocol": 1, "programs": {"onnx": ""}, "codecs": []}', "codecs"),
        (b'{"protocol": 1, "programs": {"onnx": ""}, "codecs": ["a"], "conditions": {"battery_ratio": 7}}', "battery"),
        (b'{"a": ' + b"[" * 3000 + b"]" * 3000 + b"}", ""),
    ],
)
def test_a_wrong_message_is_told_what_is_wrong(tmp_path: Path, body: bytes, named: str) -> None:
    async def ask() -> None:
        async with running(tiny_plan(tmp_path / "plan"), tmp_path / "state") as run:
            phone = await run.phone()
            answer = await run.client.post(f"{BASE}/check-in", content=body, headers=phone.headers)
            assert answer.status_code == 422
            assert named in answer.json()["error"]["message"]

    of(ask())


def test_unknown_fields_are_ignored(tmp_path: Path) -> None:
    async def ask() -> None:
        async with running(tiny_plan(tmp_path / "plan"), tmp_path / "state") as run:
            phone = await run.phone()
            await phone.assigned()  # the first version is made
            answer = await phone.check_in(of_the_future={"a": 1}, conditions={"idle": True, "moon": "full"})
            assert answer["assignment"] is not None

    of(ask())


def test_a_rest_is_noted_and_decides_nothing(tmp_path: Path) -> None:
    async def rest() -> None:
        async with running(tiny_plan(tmp_path / "plan"), tmp_path / "state") as run:
            phone = await run.phone()
            work = await phone.assigned()
            for name in ("pause", "resume"):
                answer = await run.client.post(f"{BASE}/{name}", headers=phone.headers)
                assert (answer.status_code, answer.content) == (204, b"")
                status = (await run.client.get(f"{BASE}/status", headers=phone.headers)).json()
                # What it holds is due as before.
                assert status["open_assignments"] == [work["assignment_id"]]
            query = sa.select(AUDIT.c.action).where(AUDIT.c.actor == f"device {phone.device_id}")
            with open_database(run.folder, "").connect() as connection:
                assert connection.execute(query).scalars().all()[-2:] == ["pause", "resume"]

    of(rest())


def test_a_long_body_is_cut_off(tmp_path: Path) -> None:
    async def ask() -> None:
        async with running(tiny_plan(tmp_path / "plan"), tmp_path / "state") as run:
            phone = await run.phone()
            answer = await run.client.post(f"{BASE}/check-in", content=b" " * 70_000, headers=phone.headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_long")

    of(ask())


def test_a_route_that_is_none_is_an_error_like_others(tmp_path: Path) -> None:
    async def ask() -> None:
        async with running(tiny_plan(tmp_path / "plan"), tmp_path / "state") as run:
            for method, path, status, code in (
                ("GET", "/nowhere", 404, "no_route"),
                ("GET", "/v1/populations/other/status", 404, "no_route"),
                ("PATCH", f"{BASE}/check-in", 405, "no_method"),
            ):
                answer = await run.client.request(method, path)
                assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)

    of(ask())
