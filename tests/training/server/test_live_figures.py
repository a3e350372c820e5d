"""What the live page is told: figures of a round worked out by hand, and devices by page and filter."""

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import sqlalchemy as sa
from tiny_service import Running, running, tiny_plan, update_bytes

from pocketfleet.training.server import administration
from pocketfleet.training.server.database import DEVICES, open_database
from pocketfleet.training.server.live_figures import LiveDevicesQuery, LiveReader

Result = TypeVar("Result")


def of(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(work)


async def watched(run: Running, credential: str) -> dict[str, Any]:
    """The figures, once they are fresh."""
    await asyncio.sleep(1.1)
    headers = {"Authorization": f"Bearer {credential}"}
    answer = await run.client.get("/live/events", params={"seconds": 0}, headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    event, data = answer.text.removesuffix("\n\n").split("\n")
    assert event == "event: figures"
    found: dict[str, Any] = json.loads(data.removeprefix("data: "))
    return found


async def administrator(run: Running, database_url: str = "") -> str:
    credential = administration.new_admin_credential(run.folder, database_url=database_url)
    for _ in range(400):
        if run.service.admin_sha256:
            return credential
        await asyncio.sleep(0.01)
    raise AssertionError("the credential is not known")


def test_figures_follow_a_round(tmp_path: Path, database_url: str) -> None:
    async def talk() -> None:
        async with running(tiny_plan(tmp_path / "plan"), tmp_path / "state", database_url=database_url) as run:
            credential = await administrator(run, database_url)
            phones = [await run.phone() for _ in range(3)]
            works = [await phone.assigned() for phone in phones]
            await phones[0].report(works[0]["assignment_id"], update_bytes(1.0, 1.0, 1.0))
            found = await watched(run, credential)
            assert (found["population"], found["version"], found["count"], found["paused"]) == ("tiny", 0, 1000, False)
            assert found["devices"] == {"enrolled": 3}
            told = found["open_round"]
            assert (told["round"], told["outcome"], told["assigned"], told["accepted"], told["wanted"]) == (
                *(0, "open", 3, 1, 2),
            )
            assert found["rounds"] == []
            assert [one["version"] for one in found["versions"] if one["in_use"]] == [0]
            await phones[1].report(works[1]["assignment_id"], update_bytes(1.0, 1.0, 1.0))
            await run.version(1)
            await phones[0].assigned()
            administration.pause(run.folder, database_url=database_url)
            administration.release(run.folder, 0, database_url=database_url)
            found = await watched(run, credential)
            assert found["paused"]
            (closed,) = found["rounds"]
            assert (closed["round"], closed["outcome"], closed["assigned"], closed["accepted"]) == (0, "cohort", 3, 2)
            assert (found["open_round"]["round"], found["open_round"]["assigned"]) == (1, 1)
            assert [(one["version"], one["in_use"]) for one in found["versions"]] == [(1, False), (0, True)]
            counted = {name: sum(one[name] for one in found["minutes"]) for name in ("assigned", "reports", "dropouts")}
            assert counted == {"assigned": 4, "reports": 2, "dropouts": 0}
            assert sum(one["check_ins"] for one in found["minutes"]) >= 4

    of(talk())


def test_a_stream_ends_when_its_credential_is_void(tmp_path: Path) -> None:
    async def talk() -> None:
        async with running(tiny_plan(tmp_path / "plan"), tmp_path / "state") as run:
            headers = {"Authorization": f"Bearer {await administrator(run)}"}
            for seconds in ("-1", "61", "nan", "many"):
                wrong = await run.client.get("/live/events", params={"seconds": seconds}, headers=headers)
                assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "wrong_query"), seconds
            stream = asyncio.create_task(
                run.client.get("/live/events", params={"seconds": 60}, headers=headers, timeout=None)
            )
            await asyncio.sleep(1.5)
            assert not stream.done()
            administration.new_admin_credential(run.folder)
            answer = await asyncio.wait_for(stream, 10.0)
            assert answer.text.count("event: figures") >= 2
            assert (await run.client.get("/live/events", headers=headers)).status_code == 401

    of(talk())


# Devices


def many_devices(folder: Path, count: int, database_url: str) -> sa.Engine:
    """So many, every tenth of them a Pixel and every hundredth revoked."""
    folder.mkdir()
    database = open_database(folder, database_url)
    rows = [
        {
            "device": number,
            "device_id": f"{number:018x}",
            "credential_sha256": "0" * 64,
            "enrolled_s": float(number),
            "state": "revoked" if number % 100 == 0 else "enrolled",
            # A zero is no text to PostgreSQL.
            "phone": json.dumps(
                {"model": "Pixel 8" if number % 10 == 0 else "Galaxy ü_%", "manufacturer": "", "os_version": "\0"}
            ),
            "app_version": f"7.{number % 3}",
        }
        for number in range(count)
    ]
    with database.begin() as connection:
        connection.execute(sa.insert(DEVICES), rows)
    return database


def all_pages(reader: LiveReader, **query: Any) -> tuple[list[int], int]:  # noqa: ANN401 - a query's fields
    numbers, pages, after = [], 0, -1
    while True:
        found = of(reader.devices(LiveDevicesQuery(after=after, **query)))
        numbers += [one.device for one in found.devices]
        pages += 1
        if found.next_after is None:
            return numbers, pages
        assert found.next_after > after
        after = found.next_after


def test_pages_hold_every_device_that_passes_once(tmp_path: Path, database_url: str) -> None:
    database = many_devices(tmp_path / "state", 25_000, database_url)
    reader = LiveReader(database, tiny_plan(tmp_path / "plan"))
    expected = [number for number in range(25_000) if number % 10 == 0]
    for query, wanted in (
        ({"text": "pixel"}, expected),
        ({"text": "PIXEL 8", "state": "revoked"}, expected[::10]),
        ({"state": "revoked", "limit": 7}, expected[::10]),
        ({"text": "7.2", "state": "revoked"}, [number for number in expected[::10] if number % 3 == 2]),
        ({"text": f"{4711:018x}"}, [4711]),
        ({"text": "ü_%", "limit": 200}, [number for number in range(25_000) if number % 10]),
        # Keys of what lies there are not what a device said, and no wildcard is one.
        ({"text": "manufacturer"}, []),
        ({"text": "Pixel_8"}, []),
        ({"state": "left"}, []),
    ):
        numbers, _ = all_pages(reader, **({"limit": 200} | query))
        assert numbers == wanted, query
    # A page looks at 20,000 at most, and says where the next one begins.
    found = of(reader.devices(LiveDevicesQuery(text="manufacturer")))
    assert (found.devices, found.next_after) == ([], 19_999)
    database.dispose()


def test_a_page_of_the_route_counts_reports(tmp_path: Path) -> None:
    async def talk() -> None:
        async with running(tiny_plan(tmp_path / "plan"), tmp_path / "state") as run:
            credential = await administrator(run)
            phones = [await run.phone() for _ in range(3)]
            work = await phones[1].assigned()
            await phones[1].report(work["assignment_id"], update_bytes(1.0, 1.0, 1.0))
            headers = {"Authorization": f"Bearer {credential}"}
            answer = await run.client.get("/live/devices", params={"limit": 2}, headers=headers)
            found = answer.json()
            assert [(one["device"], one["reports"]) for one in found["devices"]] == [(0, 0), (1, 1)]
            assert answer.headers["cache-control"] == "no-store"
            answer = await run.client.get("/live/devices", params={"after": found["next_after"]}, headers=headers)
            assert [one["device_id"] for one in answer.json()["devices"]] == [phones[2].device_id]
            assert answer.json()["next_after"] is None

    of(talk())


@pytest.mark.parametrize(
    "query",
    [{"text": "a\0b"}, {"text": "x" * 201}, {"state": "gone"}, {"after": "-2"}, {"limit": "0"}, {"limit": "201"}],
)
def test_a_wrong_query_is_told_what_is_wrong(tmp_path: Path, query: dict[str, str]) -> None:
    async def ask() -> httpx.Response:
        async with running(tiny_plan(tmp_path / "plan"), tmp_path / "state") as run:
            headers = {"Authorization": f"Bearer {await administrator(run)}"}
            return await run.client.get("/live/devices", params=query, headers=headers)

    answer = of(ask())
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "wrong_query")
    assert next(iter(query)) in answer.json()["error"]["message"]
