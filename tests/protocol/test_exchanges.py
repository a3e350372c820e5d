"""The recorded conversation is the one that the service has today."""

import asyncio
import json
from pathlib import Path

from exchanges import FILE, REQUESTS, conversation


def test_the_service_answers_as_recorded(tmp_path: Path) -> None:
    recorded = json.loads(FILE.read_text())
    found = json.loads(json.dumps(asyncio.run(conversation(tmp_path))))
    assert [one["request"]["title"] for one in recorded] == [request["title"] for request in REQUESTS]
    for before, now in zip(recorded, found, strict=True):
        assert now == before, before["request"]["title"]


def test_the_conversation_meets_every_kind_of_answer() -> None:
    statuses = {one["answer"]["status"] for one in json.loads(FILE.read_text())}
    assert statuses == {200, 201, 204, 206, 304, 401, 403, 404, 409, 422}
