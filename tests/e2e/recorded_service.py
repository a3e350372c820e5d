"""A service of the Boston task with scripted devices, whose every kind of ending is in its log."""

import asyncio
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "training" / "server"))
from tiny_service import Phone, Running, running

from pocketfleet import Bundle, Experiment
from pocketfleet.assembly import Parts
from pocketfleet.serving import service_plan
from pocketfleet.training.server.service_plan import ServicePlan
from pocketfleet.training.update import Update

__all__ = ["experiment_of", "record"]

# Five devices are asked for three reports; a round is over after three seconds.
_SETTINGS = (
    *("fleet.devices=8", "rounds.cohort=3", "rounds.over_selection=1.5", "rounds.minimum_ratio=0.6"),
    *(
        "rounds.deadline_s=3.0",
        "rounds.interval_s=0.0",
        "training.batch_size=8",
        "training.momentum=0.0",
        "service.population='tiny'",
    ),
    *("service.device_requests_per_s=0.0", "service.longest_retry_s=0.05"),
)


def experiment_of(bundle: Bundle, *settings: str) -> Experiment:
    return Experiment.load("boston-fleet", [f"task.bundle='{bundle.path}'", *_SETTINGS, *settings])


def record(bundle: Bundle, state: Path, *settings: str) -> None:
    """Three rounds: one with a late, a silent and a repeated report, one abandoned after a restart, one more."""
    state.mkdir(parents=True)
    experiment = experiment_of(bundle, *settings)
    (state / "experiment.toml").write_text(experiment.to_toml())
    (state / "bundle").symlink_to(bundle.path)
    parts = Parts.of(experiment, bundle.path)
    script = _rounds if experiment.rounds.policy == "synchronous" else _buffers
    if experiment.rounds.selection_window_s:
        script = _window
    asyncio.run(script(service_plan(experiment, bundle, parts), state))


async def _rounds(plan: ServicePlan, state: Path) -> None:
    async with running(plan, state) as run:
        phones = [await run.phone() for _ in range(8)]
        works = [await phone.assigned() for phone in phones[:5]]
        full = await phones[5].check_in(conditions={"idle": False, "charging": True})
        assert full["turned_away"]["reason"] == "round_full"
        for phone, work in zip(phones[:3], works, strict=False):
            await _report(plan, phone, work["assignment_id"])
        assert (await _report(plan, phones[0], works[0]["assignment_id"])) == "repeated"
        await run.version(1)
        assert (await _report(plan, phones[3], works[3]["assignment_id"])) == "late"
        # Devices 4 is silent; device 6 starts again, device 7 alone reports, device 0 is silent too.
        await phones[6].assigned()
        again, alone = await phones[6].assigned(), await phones[7].assigned()
        await phones[0].assigned()
        await _report(plan, phones[7], alone["assignment_id"])
        await _closed(run, 2)
        assert (await _report(plan, phones[6], again["assignment_id"])) == "deadline_passed"
        for phone in (phones[2], phones[5], phones[1]):
            await _report(plan, phone, (await phone.assigned())["assignment_id"])
        await run.version(2)
        await phones[3].assigned()


async def _window(plan: ServicePlan, state: Path) -> None:
    """A round that holds eight devices and chooses five, of which three report."""
    async with running(plan, state) as run:
        phones = [await run.phone() for _ in range(8)]
        held = [await phone.check_in() for phone in phones]
        while held[0]["turned_away"]["reason"] == "preparing":
            await asyncio.sleep(0.05)
            held = [await phone.check_in() for phone in phones]
        assert {one["turned_away"]["reason"] for one in held} == {"held"}
        chosen: dict[int, int] = {}
        while len(chosen) < 5:
            await asyncio.sleep(0.1)
            for number, phone in enumerate(phones):
                answer = await phone.check_in() if number not in chosen else {"assignment": None}
                if answer["assignment"] is not None:
                    chosen[number] = answer["assignment"]["assignment_id"]
        for number, assignment in list(chosen.items())[:3]:
            assert await _report(plan, phones[number], assignment) == "accepted"
        await run.version(1)


async def _buffers(plan: ServicePlan, state: Path) -> None:
    """Two buffers, with a stale report, a withdrawn assignment and one that is given up."""
    async with running(plan, state) as run:
        phones = [await run.phone() for _ in range(8)]
        works = [await phone.assigned() for phone in phones[:5]]
        assert (await phones[5].check_in())["turned_away"]["reason"] == "round_full"
        for phone, work in zip(phones[:3], works, strict=False):
            await _report(plan, phone, work["assignment_id"])
        await run.version(1)
        assert (await _report(plan, phones[3], works[3]["assignment_id"])) == "accepted"
        await phones[5].assigned()
        for phone in (phones[0], phones[5]):
            await _report(plan, phone, (await phone.assigned())["assignment_id"])
        await run.version(2)
        await phones[6].assigned()
        await asyncio.sleep(plan.rounds.deadline_s)
        assert (await _report(plan, phones[4], works[4]["assignment_id"])) == "deadline_passed"
        await phones[7].assigned()


async def _report(plan: ServicePlan, phone: Phone, assignment: int) -> str:
    """Brings one that moves every weight by a thousandth of the assignment's number; the answer's code."""
    moved = {name: torch.full_like(value, 0.001 * assignment) for name, value in plan.report.delta.items()}
    body = plan.codec.encode(Update(moved, dict(plan.report.buffers)))
    facts = {"num_examples": 12 + assignment, "steps": 3, "examples_held": 20, "train_loss": 0.5}
    answer = await phone.report(assignment, body, **facts, metric_global=2.0, metric_personalised=1.5)
    found = answer.json()
    return str(found["code"] if answer.status_code == 200 else found["error"]["code"])


async def _closed(run: Running, count: int) -> None:
    for _ in range(1000):
        parts = run.service.upkeep.leader
        assert parts is not None
        if parts.coordinator.rounds.round >= count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the deadline does not close the round")
