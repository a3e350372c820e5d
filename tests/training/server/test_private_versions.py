"""A service whose models protect its devices: clipped means, secret noise, figures, and who is turned away."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
import torch
from tiny_service import BASE, Phone, Running, running, tiny_plan, update_bytes

from pocketfleet.training.privacy.accountant import Accountant
from pocketfleet.training.privacy.clipping import AdaptiveClipping
from pocketfleet.training.privacy.privacy_plan import PrivacyPlan
from pocketfleet.training.privacy.private_mean import PrivateMean
from pocketfleet.training.privacy.random_bits import secret_bits
from pocketfleet.training.round import RoundPlan
from pocketfleet.training.server.database import MODELS, PRIVACY, open_database
from pocketfleet.training.server.live_figures import LiveReader
from pocketfleet.training.server.service_plan import ServicePlan

Result = TypeVar("Result")
ADAPTIVE = AdaptiveClipping(target_quantile=0.25, learning_rate=0.2, count_stddev=10.0)


def of(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(work)


def private_plan(
    folder: Path, *, noise: float, adaptive: AdaptiveClipping | None = None, size: int = 3, cap: int = 0
) -> ServicePlan:
    mean = PrivateMean(noise_multiplier=noise, max_norm=5.0, adaptive=adaptive, bits=secret_bits())
    accountant = Accountant(accounting="participations", noise_multiplier=noise, delta=1e-6)
    rounds = RoundPlan(cohort=2, over_selection=1.5, minimum_ratio=0.5, deadline_s=600.0, max_participations=cap)
    privacy = PrivacyPlan(mean=mean, accountant=accountant)
    return tiny_plan(folder, size=size, rounds=rounds, privacy=privacy)


async def round_of(run: Running, phones: list[Phone], *bodies: bytes, version: int) -> torch.Tensor:
    """Both report; the version that comes of it."""
    works = [await phone.assigned() for phone in phones]
    for phone, work, body in zip(phones, works, bodies, strict=True):
        answer = await phone.report(work["assignment_id"], body)
        assert answer.status_code == 200, answer.text
    await run.version(version)
    assert run.service.upkeep.leader is not None
    return run.service.upkeep.leader.versions.newest.weights.trainable["w"]


def test_updates_are_clipped_and_count_alike(tmp_path: Path, database_url: str) -> None:
    async def talk() -> None:
        plan = private_plan(tmp_path / "plan", noise=0.0)
        async with running(plan, tmp_path / "state", database_url=database_url) as run:
            phones = [await run.phone() for _ in range(2)]
            # (6, 8, 0) is 10 long and becomes (3, 4, 0); (0, 0, 1) stays; one trained on eight times as many examples.
            works = [await phone.assigned() for phone in phones]
            await phones[0].report(works[0]["assignment_id"], update_bytes(6.0, 8.0, 0.0), num_examples=8)
            await phones[1].report(works[1]["assignment_id"], update_bytes(0.0, 0.0, 1.0), num_examples=1)
            await run.version(1)
            assert run.service.upkeep.leader is not None
            newest = run.service.upkeep.leader.versions.newest
            assert newest.weights.trainable["w"].tolist() == [1.5, 2.0, 0.5]

    of(talk())


def test_noise_is_of_its_spread_and_never_the_same(tmp_path: Path) -> None:
    size = 20_000

    async def talk(name: str) -> torch.Tensor:
        async with running(private_plan(tmp_path / name, noise=0.4, size=size), tmp_path / f"state-{name}") as run:
            phones = [await run.phone() for _ in range(2)]
            body = update_bytes(*[0.0] * size)
            return await round_of(run, phones, body, body, version=1)

    one, other = of(talk("one")), of(talk("other"))
    # 0.4 * 5 on the sum of two: 1 on their mean; the spread of 20,000 is known to 0.5 %.
    for found in (one, other):
        assert float(found.std()) == pytest.approx(1.0, rel=4 * 0.005)
        assert abs(float(found.mean())) < 4.0 / size**0.5
    assert abs(float((one * other).mean())) < 4.0 / size**0.5


def test_a_restart_goes_on_with_the_bound_and_the_count(tmp_path: Path, database_url: str) -> None:
    plan = private_plan(tmp_path / "plan", noise=1.0, adaptive=ADAPTIVE)
    body = update_bytes(3.0, 4.0, 0.0)

    async def talk(version: int, phones: list[str]) -> list[str]:
        async with running(plan, tmp_path / "state", database_url=database_url) as run:
            here = [Phone(run.client, credential) for credential in phones] or [await run.phone() for _ in range(2)]
            await round_of(run, here, body, body, version=version)
            return [phone.credential for phone in here]

    phones = of(talk(1, []))
    of(talk(2, phones))
    database = open_database(tmp_path / "state", database_url)
    with database.connect() as connection:
        rows = connection.execute(sa.select(PRIVACY).order_by(PRIVACY.c.version)).all()
    database.dispose()
    accountant = Accountant(accounting="participations", noise_multiplier=1.0, delta=1e-6)
    assert [(row.version, row.participations) for row in rows] == [(1, 1), (2, 2)]
    assert [row.epsilon for row in rows] == [accountant.epsilon(rounds=n, participations=n) for n in (1, 2)]
    # The bound of the second version is what the first one's count made of it, noise included.
    assert rows[0].clip_norm == 5.0
    assert rows[1].clip_norm != 5.0


def test_who_is_spent_is_told_so_and_the_figures_say_what_it_costs(tmp_path: Path, database_url: str) -> None:
    async def talk() -> None:
        plan = private_plan(tmp_path / "plan", noise=0.8, cap=1)
        async with running(plan, tmp_path / "state", database_url=database_url) as run:
            phones = [await run.phone() for _ in range(2)]
            figures = await LiveReader(run.service.upkeep.database, plan).figures(now_s=0.0, minutes=[])
            assert figures.privacy is not None
            assert (figures.privacy.epsilon, figures.privacy.clip_norm) == (0.0, 5.0)
            await round_of(run, phones, update_bytes(1.0, 0.0, 0.0), update_bytes(1.0, 0.0, 0.0), version=1)
            away = (await phones[0].check_in())["turned_away"]
            for _ in range(400):
                if away["reason"] != "preparing":
                    break
                await asyncio.sleep(0.01)
                away = (await phones[0].check_in())["turned_away"]
            assert (away["reason"], away["retry_after_s"]) == ("privacy_spent", None)
            assert away["message"] == "models have learnt from this device as often as they may"
            figures = await LiveReader(run.service.upkeep.database, plan).figures(now_s=0.0, minutes=[])
            assert figures.privacy is not None
            assert plan.privacy is not None
            assert figures.privacy.epsilon == plan.privacy.accountant.epsilon(rounds=1, participations=1)
            assert (figures.privacy.delta, figures.privacy.participations) == (1e-6, 1)

    of(talk())


def test_of_noise_drawn_twice_devices_see_one_draw(tmp_path: Path) -> None:
    async def talk() -> None:
        async with running(private_plan(tmp_path / "plan", noise=0.4), tmp_path / "state") as run:
            upkeep, offered = run.service.upkeep, []

            def refuse_once(connection: object, cursor: object, statement: str, *_: object) -> None:
                if statement.startswith("INSERT INTO models"):
                    offered.append(1 in upkeep.downloads)
                    if len(offered) == 1:
                        raise sa.exc.OperationalError(statement, {}, OSError("the disk is full"))

            sa.event.listen(upkeep.database, "before_cursor_execute", refuse_once)
            phones = [await run.phone() for _ in range(2)]
            await round_of(run, phones, update_bytes(0.0, 0.0, 0.0), update_bytes(0.0, 0.0, 0.0), version=1)
            assert offered == [False, False]
            weights = {path.name for path in (tmp_path / "state" / "files").rglob("*") if path.is_file()}
            served = {name for name in weights if await can_get(phones[0], name)}
            with upkeep.database.connect() as connection:
                written = set(connection.execute(sa.select(MODELS.c.download_sha256)).scalars())
            # Both draws have left files, of which devices get those of the versions alone.
            assert written < weights
            assert served - upkeep.downloads.program_hashes == written

    of(talk())


async def can_get(phone: Phone, sha256: str) -> bool:
    answer = await phone.client.get(f"{BASE}/files/{sha256}", headers=phone.headers)
    assert answer.status_code in {200, 404}
    return answer.status_code == 200
