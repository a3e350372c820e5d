"""Asks of many requests, decided together: a commit takes as long for a hundred as for one.

While a batch is being written the next one gathers. Whoever asked hears when it is durable, or that it is not.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from pocketfleet.training.server.durable_coordinator import Answer, Ask, Decided

__all__ = ["DecisionQueue"]

# Some hundred kilobytes of rows: what comes meanwhile does not wait for thousands.
_MOST_AT_ONCE = 500


class DecisionQueue:
    """Runs while ``run`` does.

    Args:
        decide: a batch, in a thread of its own.
    """

    def __init__(self, decide: Callable[[Sequence[Ask]], Awaitable[Decided]]) -> None:
        self._decide = decide
        self._waiting: list[tuple[Ask, asyncio.Future[Answer]]] = []
        self._filled = asyncio.Event()

    @property
    def length(self) -> int:
        """Asks that wait."""
        return len(self._waiting)

    async def ask(self, ask: Ask) -> Answer:
        """The answer, once it is durable.

        Raises:
            StorageError: it is not, and nothing happened.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((ask, future))
        self._filled.set()
        return await future

    async def run(self) -> None:
        """Decide batch after batch, until cancelled; a batch under way is finished before."""
        while True:
            await self._filled.wait()
            batch, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
            if not self._waiting:
                self._filled.clear()
            await asyncio.shield(self._answer(batch))

    async def _answer(self, batch: Sequence[tuple[Ask, asyncio.Future[Answer]]]) -> None:
        try:
            decided = await self._decide([ask for ask, _ in batch])
        except Exception as exc:  # noqa: BLE001 - whatever it is, those who asked are told
            for _, future in batch:
                if not future.done():
                    future.set_exception(exc)
            return
        for (_, future), answer in zip(batch, decided.answers, strict=True):
            if not future.done():
                future.set_result(answer)
