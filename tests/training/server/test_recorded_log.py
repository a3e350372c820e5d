"""A log is read as it was written, while the service goes on."""

import asyncio
from pathlib import Path

import pandas as pd
import pytest
from tiny_service import BASE, running, tiny_plan, update_bytes

from pocketfleet.errors import InputError
from pocketfleet.training.server.recorded_log import RecordedLog, read_log


def test_a_log_holds_what_was_decided(tmp_path: Path, database_url: str) -> None:
    async def talk() -> RecordedLog:
        plan, state = tiny_plan(tmp_path / "plan"), tmp_path / "state"
        async with running(plan, state, database_url=database_url) as run:
            phones = [await run.phone() for _ in range(3)]
            works = [await phone.assigned() for phone in phones]
            for phone, work in zip(phones[:2], works, strict=False):
                await phone.report(work["assignment_id"], update_bytes(1.0, 1.0, 1.0))
            await run.version(1)
            for _ in range(400):
                answer = await phones[2].check_in(conditions={"idle": True, "charging": False, "battery_ratio": 0.5})
                if answer["assignment"]:
                    break
                await asyncio.sleep(0.01)
            await run.client.delete(f"{BASE}/device", headers=phones[0].headers)
            return await asyncio.to_thread(read_log, state, database_url=database_url)

    log = asyncio.run(talk())
    decisions = log.decisions
    assert decisions["sequence"].tolist() == list(range(len(decisions)))
    assert decisions["kind"].tolist() == ["check_in"] * 3 + ["report"] * 2 + ["check_in"]
    assert decisions["idle"].isna().tolist() == [True] * 5 + [False]
    last = decisions.iloc[-1]
    assert (last["idle"], last["charging"], last["battery_ratio"]) == (True, False, 0.5)
    assert pd.isna(last["unmetered"])
    assert (len(log.work), len(log.reports), len(log.rounds), len(log.models), log.devices) == (4, 2, 1, 2, 3)
    assert "note" not in decisions


def test_a_folder_without_a_state_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no service's state, it holds no service\.sqlite"):
        read_log(tmp_path)
