"""Who asks while a batch is written is in the next one."""

import asyncio
from collections.abc import Sequence

import pytest

from pocketfleet.training.server.decision_queue import DecisionQueue
from pocketfleet.training.server.durable_coordinator import Ask, CheckInAsk, Decided, StorageError


def test_asks_gather_while_a_batch_is_written() -> None:
    sizes = []

    async def decide(asks: Sequence[Ask]) -> Decided:
        sizes.append(len(asks))
        await asyncio.sleep(0.02)
        return Decided(answers=[None] * len(asks), closed=())

    async def ask() -> None:
        queue = DecisionQueue(decide)
        task = asyncio.create_task(queue.run())
        first = asyncio.create_task(queue.ask(CheckInAsk(device=0, note="")))
        await asyncio.sleep(0.01)
        await asyncio.gather(first, *(queue.ask(CheckInAsk(device=one, note="")) for one in range(9)))
        task.cancel()

    asyncio.run(ask())
    assert sizes == [1, 9]


def test_a_batch_that_fails_is_told_to_all_and_the_next_goes_on() -> None:
    fails = [True]

    async def decide(asks: Sequence[Ask]) -> Decided:
        if fails[0]:
            raise StorageError("full")
        return Decided(answers=[None] * len(asks), closed=())

    async def ask() -> None:
        queue = DecisionQueue(decide)
        task = asyncio.create_task(queue.run())
        asks = [queue.ask(CheckInAsk(device=one, note="")) for one in range(3)]
        found = await asyncio.gather(*asks, return_exceptions=True)
        assert [str(one) for one in found] == ["full"] * 3
        fails[0] = False
        assert await queue.ask(CheckInAsk(device=1, note="")) is None
        task.cancel()

    asyncio.run(ask())


def test_who_went_away_is_no_trouble() -> None:
    async def decide(asks: Sequence[Ask]) -> Decided:
        await asyncio.sleep(0.02)
        return Decided(answers=[None] * len(asks), closed=())

    async def ask() -> None:
        queue = DecisionQueue(decide)
        task = asyncio.create_task(queue.run())
        gone = asyncio.create_task(queue.ask(CheckInAsk(device=0, note="")))
        await asyncio.sleep(0.005)
        gone.cancel()
        assert await queue.ask(CheckInAsk(device=1, note="")) is None
        with pytest.raises(asyncio.CancelledError):
            await gone
        task.cancel()

    asyncio.run(ask())
