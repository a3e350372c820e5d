"""Rounds over HTTP, worked out by hand."""

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import torch
from tiny_service import BASE, Phone, running, tiny_plan, update_bytes

from pocketfleet.errors import InputError
from pocketfleet.training.buffered_coordinator import BufferedPlan
from pocketfleet.training.draws import draw_key
from pocketfleet.training.server import administration
from pocketfleet.training.server.service_plan import Limits

Result = TypeVar("Result")


def of(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(work)


def test_two_reports_make_the_weighted_mean(tmp_path: Path, database_url: str) -> None:
    async def rounds() -> None:
        async with running(tiny_plan(tmp_path / "plan"), tmp_path / "state", database_url=database_url) as run:
            first, second = [await run.phone() for _ in range(2)]
            one, two = await first.assigned(), await second.assigned()
            assert (one["model_version"], one["round"], one["program"]) == (0, 0, "onnx")
            assert torch.equal((await first.weights(one["weights"]))["w"], torch.zeros(3))
            assert one["batch_seed"] == int(draw_key(7, "batch_seed", 0, 0)) >> 1
            assert 590.0 < one["deadline_in_s"] <= 600.0
            assert one["update_bytes"] == len(update_bytes(1.0, 2.0, 3.0))
            for phone, work, body, examples in (
                (first, one, update_bytes(1.0, 2.0, 3.0, buffer=1.0), 2),
                (second, two, update_bytes(4.0, 5.0, 6.0, buffer=4.0), 4),
            ):
                answer = await phone.report(work["assignment_id"], body, num_examples=examples)
                assert (answer.status_code, answer.json()["code"]) == (200, "accepted")
            await run.version(1)
            third = await first.assigned()
            assert (third["model_version"], third["round"]) == (1, 1)
            # (2 * [1, 2, 3] + 4 * [4, 5, 6]) / 6, and the buffers' mean.
            learnt = await first.weights(third["weights"])
            assert torch.allclose(learnt["w"], torch.tensor([3.0, 4.0, 5.0]))
            assert torch.allclose(learnt["b"], torch.tensor([3.0]))
            # What is in a version is kept no longer.
            assert not list((tmp_path / "state" / "updates").iterdir())

    of(rounds())


async def held(client: httpx.AsyncClient, phone: Phone) -> list[int]:
    """The assignments that a device has not reported on."""
    answer = await client.get(f"{BASE}/status", headers=phone.headers)
    found: list[int] = answer.json()["open_assignments"]
    return found


def test_the_same_report_again_is_answered_the_same(tmp_path: Path, database_url: str) -> None:
    async def rounds() -> None:
        async with running(tiny_plan(tmp_path / "plan"), tmp_path / "state", database_url=database_url) as run:
            first, second = [await run.phone() for _ in range(2)]
            one, two = await first.assigned(), await second.assigned()
            body = update_bytes(1.0, 0.0, 0.0)
            assert (await held(run.client, first), await held(run.client, second)) == ([0], [1])
            answers = [await first.report(one["assignment_id"], body) for _ in range(2)]
            assert [answer.json()["code"] for answer in answers] == ["accepted", "repeated"]
            assert await held(run.client, first) == []
            other = await first.report(one["assignment_id"], update_bytes(9.0, 0.0, 0.0))
            assert (other.status_code, other.json()["error"]["code"]) == (409, "other_report")
            await second.report(two["assignment_id"], body)
            await run.version(1)
            again = await first.report(one["assignment_id"], body)
            assert (again.status_code, again.json()) == (200, {"code": "repeated", "round": 0})
            work = await first.assigned()
            assert torch.allclose((await first.weights(work["weights"]))["w"], torch.tensor([1.0, 0.0, 0.0]))

    of(rounds())


def test_a_restart_goes_on_in_the_middle_of_a_round(tmp_path: Path, database_url: str) -> None:
    plan = tiny_plan(tmp_path / "plan")

    async def before() -> tuple[str, str, int, int]:
        async with running(plan, tmp_path / "state", database_url=database_url) as run:
            first, second = [await run.phone() for _ in range(2)]
            one, two = await first.assigned(), await second.assigned()
            await first.report(one["assignment_id"], update_bytes(1.0, 1.0, 1.0))
            return first.credential, second.credential, one["assignment_id"], two["assignment_id"]

    async def after(first: str, second: str, one: int, two: int) -> None:
        async with running(plan, tmp_path / "state", database_url=database_url) as run:
            phones = [Phone(run.client, credential) for credential in (first, second)]
            again = await phones[0].report(one, update_bytes(1.0, 1.0, 1.0))
            assert again.json()["code"] == "repeated"
            answer = await phones[1].report(two, update_bytes(3.0, 3.0, 3.0))
            assert answer.json()["code"] == "accepted"
            await run.version(1)
            work = await phones[0].assigned()
            assert torch.allclose((await phones[0].weights(work["weights"]))["w"], torch.full((3,), 2.0))

    of(after(*of(before())))


def test_a_restart_makes_a_version_that_was_not_made(tmp_path: Path, database_url: str) -> None:
    plan = tiny_plan(tmp_path / "plan")

    async def before() -> None:
        async with running(plan, tmp_path / "state", database_url=database_url) as run:
            phones = [await run.phone() for _ in range(2)]
            work = [await phone.assigned() for phone in phones]
            # As if it were killed between the closing and the version.
            run.service.upkeep._tasks[-1].cancel()
            for phone, one in zip(phones, work, strict=True):
                assert (await phone.report(one["assignment_id"], update_bytes(2.0, 2.0, 2.0))).status_code == 200
            away = (await phones[0].check_in())["turned_away"]
            assert (away["reason"], away["retry_after_s"]) == ("preparing", 0.05)

    async def after() -> None:
        async with running(plan, tmp_path / "state", database_url=database_url) as run:
            await run.version(1)
            phone = await run.phone()
            work = await phone.assigned()
            assert torch.allclose((await phone.weights(work["weights"]))["w"], torch.full((3,), 2.0))

    of(before())
    of(after())


def test_another_experiment_is_refused_on_the_same_state(tmp_path: Path, database_url: str) -> None:
    async def start(fingerprint: str) -> None:
        async with running(
            tiny_plan(tmp_path / "plan", fingerprint=fingerprint), tmp_path / "state", database_url=database_url
        ):
            pass

    of(start("one"))
    with pytest.raises(InputError, match="began with another fingerprint"):
        of(start("two"))


def test_a_deadline_closes_a_round_with_nobody_asking(tmp_path: Path, database_url: str) -> None:
    from pocketfleet.training.round import RoundPlan

    short = RoundPlan(cohort=2, over_selection=1.0, minimum_ratio=0.5, deadline_s=0.5)

    async def rounds() -> None:
        async with running(
            tiny_plan(tmp_path / "plan", rounds=short), tmp_path / "state", database_url=database_url
        ) as run:
            first, second = [await run.phone() for _ in range(2)]
            one, two = await first.assigned(), await second.assigned()
            await first.report(one["assignment_id"], update_bytes(1.0, 1.0, 1.0))
            await run.version(1)
            late = await second.report(two["assignment_id"], update_bytes(1.0, 1.0, 1.0))
            assert (late.status_code, late.json()["error"]["code"]) == (409, "deadline_passed")
            assert not list((tmp_path / "state" / "updates").iterdir())

    of(rounds())


def test_a_buffer_takes_reports_of_older_versions(tmp_path: Path, database_url: str) -> None:
    buffered = BufferedPlan(buffer=1, concurrency=2, max_staleness=5, deadline_s=600.0)
    plan = tiny_plan(tmp_path / "plan", rounds=buffered, staleness_exponent=1.0)

    async def rounds() -> None:
        async with running(plan, tmp_path / "state", database_url=database_url) as run:
            first, second = [await run.phone() for _ in range(2)]
            one, two = await first.assigned(), await second.assigned()
            await first.report(one["assignment_id"], update_bytes(1.0, 1.0, 1.0))
            await run.version(1)
            await second.report(two["assignment_id"], update_bytes(1.0, 1.0, 1.0))
            await run.version(2)
            # The second is a version old: it counts half.
            work = await first.assigned()
            assert torch.allclose((await first.weights(work["weights"]))["w"], torch.full((3,), 1.5))

    of(rounds())


def test_what_a_device_says_of_itself_is_kept_and_forgotten(tmp_path: Path, database_url: str) -> None:
    async def talk() -> None:
        async with running(tiny_plan(tmp_path / "plan"), tmp_path / "state", database_url=database_url) as run:
            phone = await run.phone()
            measured = {"program": "onnx", "batch_size": 8, "median_s": 0.01, "repeats": 5}
            answer = await run.client.post(f"{BASE}/benchmarks", json=measured, headers=phone.headers)
            assert answer.status_code == 204
            status = (await run.client.get(f"{BASE}/status", headers=phone.headers)).json()
            assert (status["device_id"], status["reports_accepted"]) == (phone.device_id, 0)
            assert (await run.client.delete(f"{BASE}/device", headers=phone.headers)).status_code == 204
            gone = await run.client.get(f"{BASE}/status", headers=phone.headers)
            assert (gone.status_code, gone.json()["error"]["code"]) == (403, "forgotten")
        (row,) = administration.device_rows(tmp_path / "state", database_url=database_url)
        assert (row["state"], json.loads(row["phone"])) == ("forgotten", {})

    of(talk())


def test_devices_that_cannot_take_part_are_told_why(tmp_path: Path, database_url: str) -> None:
    async def talk() -> None:
        async with running(tiny_plan(tmp_path / "plan", count=0), tmp_path / "state", database_url=database_url) as run:
            phone = await run.phone()
            for changed, reason in (
                ({"protocol": 2}, "upgrade"),
                ({"programs": {"executorch": "1.5.1"}}, "no_program"),
                ({"codecs": ["int8"]}, "no_codec"),
                ({}, "finished"),
            ):
                away = (await phone.check_in(**changed))["turned_away"]
                assert away["reason"] == reason
                assert (away["retry_after_s"] is None) == (reason != "finished")

    of(talk())


def test_administrators_reach_a_running_service(tmp_path: Path, database_url: str) -> None:
    async def talk() -> None:
        async with running(tiny_plan(tmp_path / "plan"), tmp_path / "state", database_url=database_url) as run:
            phones = [await run.phone() for _ in range(2)]
            for phone in phones:
                work = await phone.assigned()
                await phone.report(work["assignment_id"], update_bytes(1.0, 1.0, 1.0))
            await run.version(1)
            # A moment after it is the newest it is what devices use.
            for _ in range(300):
                released = (await phones[0].check_in())["released"]
                if released["version"] == 1:
                    break
                await asyncio.sleep(0.01)
            assert released["version"] == 1
            administration.roll_back(run.folder, 0, database_url=database_url)
            administration.pause(run.folder, database_url=database_url)
            administration.revoke(run.folder, phones[1].device_id, database_url=database_url)
            for _ in range(300):
                answer = await phones[0].check_in()
                if answer["turned_away"] and answer["turned_away"]["reason"] == "paused":
                    break
                await asyncio.sleep(0.01)
            assert (answer["turned_away"]["reason"], answer["released"]["version"]) == ("paused", 0)
            assert torch.equal((await phones[0].weights(answer["released"]["weights"]))["w"], torch.zeros(3))
            refused = await run.client.get(f"{BASE}/status", headers=phones[1].headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "revoked")
        with pytest.raises(InputError, match="there is no version 9: the service has 0 to 1"):
            administration.release(tmp_path / "state", 9, database_url=database_url)
        with pytest.raises(InputError, match="devices use version 0: roll back to an older one, got 1"):
            administration.roll_back(tmp_path / "state", 1, database_url=database_url)

    of(talk())


def test_too_many_requests_are_told_when_to_come_again(tmp_path: Path, database_url: str) -> None:
    limits = Limits(device_requests_per_s=0.5, device_burst=3, address_failures_per_s=0.1, address_burst=2)

    async def talk() -> None:
        async with running(
            tiny_plan(tmp_path / "plan", limits=limits), tmp_path / "state", database_url=database_url
        ) as run:
            phone = await run.phone()
            answers = [await run.client.get(f"{BASE}/status", headers=phone.headers) for _ in range(4)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
            assert answers[-1].headers["retry-after"] == "2"
            wrong = [await run.client.post(f"{BASE}/enrol", json={"token": "guess"}) for _ in range(3)]
            assert [answer.status_code for answer in wrong] == [401, 401, 429]

    of(talk())
