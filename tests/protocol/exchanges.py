"""A device's whole conversation with the service, as a file that clients in other languages test against.

``exchanges.json`` is a list of requests with their answers. In it ``$NAME`` stands for what differs from run to run:
in an answer it is to be remembered (and may be anything), in a request it is what was remembered. ``hex`` bodies are
bytes.

``python tests/protocol/exchanges.py`` records the file anew, from the tiny service.
"""

import asyncio
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
FILE = HERE / "exchanges.json"
sys.path.append(str(HERE.parent / "training" / "server"))

from tiny_service import BASE, CHECK_IN, Running, digest, running, tiny_plan, update_bytes  # noqa: E402

from pocketfleet.training.release_verdict import ReleasePlan  # noqa: E402
from pocketfleet.training.server.administration import issue_tokens  # noqa: E402

GOOD = update_bytes(1.0, 2.0, 3.0)
NAN = update_bytes(1.0, float("nan"), 3.0)
DEVICE = {"Authorization": "Bearer $credential"}
# Of an answer's headers, those that are part of the protocol.
TOLD_HEADERS = ("content-type", "etag", "cache-control", "content-range", "retry-after", "www-authenticate")
# Fields of answers that differ from run to run, and the names they are remembered by.
DIFFERS = {
    "device_id": "device_id",
    "credential": "credential",
    "deadline_in_s": "deadline_in_s",
}


def report(title: str, body: bytes, *, said: bytes | None = None, **facts: object) -> dict[str, Any]:
    query = {"num_examples": 4, "steps": 1, "examples_held": 5, "train_loss": 0.5} | facts
    return {
        "title": title,
        "method": "PUT",
        "path": f"{BASE}/reports/0",
        "query": {name: str(value) for name, value in query.items()},
        "headers": DEVICE
        | {"Content-Type": "application/octet-stream", "Content-Digest": digest(body if said is None else said)},
        "hex": body.hex(),
    }


def evaluation(title: str, *, number: int = 0, **said: float) -> dict[str, Any]:
    found = {"num_held_out": 5, "tried": 0.5, "released": 1.0} | said
    return {
        "title": title,
        "method": "PUT",
        "path": f"{BASE}/evaluations/{number}",
        "headers": DEVICE,
        "json": found,
    }


def get(title: str, path: str, **headers: str) -> dict[str, Any]:
    return {"title": title, "method": "GET", "path": path, "headers": DEVICE | headers}


def post(title: str, path: str, body: object, headers: dict[str, str]) -> dict[str, Any]:
    return {"title": title, "method": "POST", "path": f"{BASE}/{path}", "headers": headers, "json": body}


# Before it another device's report closes the round, and its version goes on trial.
EVALUATES = "check in to evaluate a version"
GATE = ReleasePlan(
    seed=7,
    evaluation_reports=1,
    canary_ratio=0.0,
    canary_reports=1,
    over_selection=1.0,
    minimum_ratio=1.0,
    report_within_s=600.0,
    deadline_s=600.0,
)

REQUESTS: list[dict[str, Any]] = [
    post("a token that is none", "enrol", {"token": "none"}, {}),
    post("enrol", "enrol", {"token": "$token", "phone": {"model": "Pixel 8"}, "app_version": "7"}, {}),
    post("a token that was used", "enrol", {"token": "$token"}, {}),
    post("check in without a credential", "check-in", CHECK_IN, {}),
    post("check in with a field missing", "check-in", {"protocol": 1, "codecs": ["lossless"]}, DEVICE),
    post("check in with a protocol of the future", "check-in", CHECK_IN | {"protocol": 2}, DEVICE),
    post("check in without a program that there is", "check-in", CHECK_IN | {"programs": {"tflite": "2"}}, DEVICE),
    post(
        "check in",
        "check-in",
        CHECK_IN | {"conditions": {"idle": True, "charging": True, "unmetered": True, "battery_ratio": 0.8}},
        DEVICE,
    ),
    get("download the weights", f"{BASE}/files/$weights"),
    get("download what is left of them", f"{BASE}/files/$weights", Range="bytes=100-"),
    get("ask whether they changed", f"{BASE}/files/$weights", **{"If-None-Match": '"$weights"'}),
    get("download a file that is none", f"{BASE}/files/{'0' * 64}"),
    report("report with another digest", GOOD, said=b"other"),
    report("report bytes that are cut short", GOOD[:-1]),
    report("report NaN", NAN),
    report("report more examples than the steps hold", GOOD, num_examples=9),
    report("report", GOOD),
    report("report the same again", GOOD),
    report("report something else", update_bytes(9.0, 9.0, 9.0)),
    report("report on an assignment that is none", GOOD) | {"path": f"{BASE}/reports/77"},
    post("check in after the report", "check-in", CHECK_IN, DEVICE),
    get("status", f"{BASE}/status"),
    post("a benchmark", "benchmarks", {"program": "onnx", "batch_size": 8, "median_s": 0.01, "repeats": 5}, DEVICE),
    post(EVALUATES, "check-in", CHECK_IN | {"evaluates": True}, DEVICE),
    evaluation("report an evaluation of nothing", num_held_out=0),
    evaluation("report on an evaluation that is none", number=77),
    evaluation("report an evaluation"),
    evaluation("report the same evaluation again"),
    evaluation("report another evaluation", tried=0.25),
    post("check in for the released version", "check-in", CHECK_IN, DEVICE),
    post("a stage of a round without stages", "reports/0/stages/1", None, DEVICE),
    {"title": "be forgotten", "method": "DELETE", "path": f"{BASE}/device", "headers": DEVICE},
    get("status of a forgotten device", f"{BASE}/status"),
]


def filled(value: object, known: dict[str, str]) -> Any:  # noqa: ANN401 - as JSON
    """``$NAME`` replaced by what was remembered."""
    if isinstance(value, str):
        return re.sub(r"\$(\w+)", lambda match: known[match[1]], value)
    if isinstance(value, dict):
        return {name: filled(inner, known) for name, inner in value.items()}
    return [filled(inner, known) for inner in value] if isinstance(value, list) else value


async def asked(client: httpx.AsyncClient, request: dict[str, Any], known: dict[str, str]) -> dict[str, Any]:
    """The answer, as the file has it."""
    request = filled(request, known)
    body = {"content": bytes.fromhex(request["hex"])} if "hex" in request else {"json": request.get("json")}
    answer = await client.request(
        request["method"],
        request["path"],
        params=request.get("query"),
        headers=request["headers"],
        **(body if request["method"] in {"POST", "PUT"} else {}),
    )
    found: dict[str, Any] = {
        "status": answer.status_code,
        "headers": {name: answer.headers[name] for name in TOLD_HEADERS if name in answer.headers},
    }
    if answer.headers.get("content-type") == "application/json":
        found["json"] = answer.json()
    elif answer.content:
        found["hex"] = answer.content.hex()
    return found


def masked(value: Any, known: dict[str, str]) -> Any:  # noqa: ANN401 - as JSON
    """What differs from run to run as ``$NAME``, its value remembered."""
    if isinstance(value, dict):
        found = {}
        for name, inner in value.items():
            if name in DIFFERS and inner is not None:
                known[DIFFERS[name]] = str(inner)
                found[name] = f"${DIFFERS[name]}"
            else:
                found[name] = masked(inner, known)
        if "weights" in value and isinstance(value["weights"], dict):
            known["weights"] = value["weights"]["sha256"]
        return found
    return [masked(inner, known) for inner in value] if isinstance(value, list) else value


async def closed_round(run: Running) -> None:
    """Another device reports, and the version is made and on trial."""
    phone = await run.phone()
    work = await phone.assigned()
    assert (await phone.report(work["assignment_id"], GOOD)).status_code == 200
    await run.version(1)
    while run.service.upkeep.preparing:
        await asyncio.sleep(0.01)


async def conversation(folder: Path) -> list[dict[str, Any]]:
    """Every request with the answer of a new service."""
    plan = tiny_plan(folder / "plan", release=GATE)
    async with running(plan, folder / "state") as run:
        (token,) = issue_tokens(folder / "state")
        known, found = {"token": token}, []
        for request in REQUESTS:
            if request["title"] == EVALUATES:
                await closed_round(run)
            answer = await asked(run.client, request, known)
            found.append({"request": request, "answer": masked(answer, known)})
        return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        FILE.write_text(json.dumps(asyncio.run(conversation(Path(place))), indent=1) + "\n")
