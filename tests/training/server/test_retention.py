"""Old versions' files go once nobody can need them, and no others."""

import asyncio
import hashlib
from pathlib import Path

import pytest
from tiny_service import BASE, Phone, Running, running, tiny_plan, update_bytes

from pocketfleet.errors import InputError
from pocketfleet.training.round import RoundPlan
from pocketfleet.training.server import administration, upkeep
from pocketfleet.training.server.retention import needed_versions
from pocketfleet.training.server.service_plan import Limits

LIMITS = Limits(device_requests_per_s=0.0, longest_retry_s=0.05, max_devices=1000, keep_models=2)
# A second in which a round is over: the two reports take milliseconds.
ROUNDS = RoundPlan(cohort=2, over_selection=1.0, minimum_ratio=0.5, deadline_s=1.0)


def test_the_newest_the_used_and_those_of_live_work_are_needed() -> None:
    made_s = {0: 0.0, 1: 100.0, 2: 200.0, 3: 300.0, 4: 400.0}
    # At 420 s with a deadline of 130 s, work from version 2 was given until 300 s at most: live until 430 s.
    assert needed_versions(made_s, keep=1, in_use={-1}, deadline_s=130.0, now_s=420.0) == {2, 3, 4}
    assert needed_versions(made_s, keep=1, in_use={-1}, deadline_s=130.0, now_s=430.0) == {3, 4}
    assert needed_versions(made_s, keep=1, in_use={0}, deadline_s=10.0, now_s=1000.0) == {0, 4}
    assert needed_versions(made_s, keep=9, in_use=set(), deadline_s=10.0, now_s=1000.0) == {0, 1, 2, 3, 4}


async def make_versions(run: Running, phones: list[Phone], numbers: range) -> None:
    for number in numbers:
        for phone in phones:
            work = await phone.assigned()
            await phone.report(work["assignment_id"], update_bytes(float(number), 1.0, 1.0))
        await run.version(number)


async def until_kept(folder: Path, versions: list[int]) -> None:
    """Wait for the files of these versions, and of no others."""
    for _ in range(400):
        rows = administration.model_rows(folder)
        held = {file.name for file in (folder / "files").iterdir()}
        if [row["version"] for row in rows if row["download_sha256"] in held] == versions:
            assert [row["version"] for row in rows if row["files_kept"]] == versions
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"kept are {[row['version'] for row in rows if row['download_sha256'] in held]}")


def test_files_of_old_versions_go_and_a_restart_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_RETENTION_S", 0.05)
    plan, folder = tiny_plan(tmp_path / "plan", limits=LIMITS, rounds=ROUNDS), tmp_path / "state"

    async def first() -> tuple[str, dict[str, str]]:
        async with running(plan, folder) as run:
            phones = [await run.phone() for _ in range(2)]
            await make_versions(run, phones, range(1, 3))
            administration.release(folder, 1)
            await make_versions(run, phones, range(3, 6))
            await until_kept(folder, [1, 4, 5])
            answers = {}
            for row in administration.model_rows(folder):
                answer = await run.client.get(f"{BASE}/files/{row['download_sha256']}", headers=phones[0].headers)
                answers[row["version"]] = answer.status_code
                if answer.status_code == 404:
                    assert answer.json()["error"]["code"] == "no_file"
                else:
                    assert hashlib.sha256(answer.content).hexdigest() == row["download_sha256"]
            assert answers == {0: 404, 1: 200, 2: 404, 3: 404, 4: 200, 5: 200}
            # The program's file is no version's.
            work = await phones[0].assigned()
            program = work["bundle"]["train_step.onnx"]["sha256"]
            assert (await run.client.get(f"{BASE}/files/{program}", headers=phones[0].headers)).status_code == 200
            return phones[0].credential, program

    async def second(credential: str) -> None:
        async with running(plan, folder) as run:
            phones = [Phone(run.client, credential), await run.phone()]
            assert (await phones[0].check_in())["released"]["version"] == 1
            with pytest.raises(InputError, match=r"version 3 has no files any more .*: those of 1, 4, 5 are kept"):
                administration.release(folder, 3)
            administration.release(folder, 5)
            await make_versions(run, phones, range(6, 8))
            await until_kept(folder, [5, 6, 7])
            assert "storage_failed" not in run.log.getvalue()

    credential, _ = asyncio.run(first())
    asyncio.run(second(credential))


def test_all_versions_are_kept_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_RETENTION_S", 0.05)

    async def talk() -> None:
        plan = tiny_plan(tmp_path / "plan", rounds=ROUNDS)
        assert plan.limits.keep_models == 0
        async with running(plan, tmp_path / "state") as run:
            phones = [await run.phone() for _ in range(2)]
            await make_versions(run, phones, range(1, 4))
            await asyncio.sleep(1.5)
            await until_kept(tmp_path / "state", [0, 1, 2, 3])

    asyncio.run(talk())


def test_a_version_that_is_released_while_it_leaves_is_kept(tmp_path: Path) -> None:
    """An administrator's release and the look that hides the version may cross."""

    async def talk() -> None:
        plan = tiny_plan(tmp_path / "plan", limits=LIMITS, rounds=ROUNDS)
        async with running(plan, tmp_path / "state") as run:
            phones = [await run.phone() for _ in range(2)]
            await make_versions(run, phones, range(1, 4))
            parts = run.service.upkeep.leader
            assert parts is not None
            administration.release(tmp_path / "state", 1)
            assert parts.retention.look(now_s=parts.clock.now_s() + 10.0)  # 0 leaves
            assert [row["files_kept"] for row in administration.model_rows(tmp_path / "state")] == [False, *[True] * 3]
            # As if it had been committed the moment before.
            administration._set(tmp_path / "state", "released", "0", action="release", database_url="")
            assert parts.retention.look(now_s=parts.clock.now_s() + 10.0)  # 0 again, 1 leaves
            kept = [row["files_kept"] for row in administration.model_rows(tmp_path / "state")]
            assert kept == [True, False, True, True]
            assert not parts.retention.look(now_s=parts.clock.now_s() + 10.0)
            await until_kept(tmp_path / "state", [0, 2, 3])

    asyncio.run(talk())
