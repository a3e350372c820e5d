"""Server-sent events of the live page: the figures about once a second, while whoever watches may.

A stream ends by itself, so that no watcher holds up a server that is told to stop; whoever watches asks again. Every
event is complete in itself.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pocketfleet.training.server.durable_coordinator import StorageError
from pocketfleet.training.server.live_figures import LiveFigures
from pocketfleet.training.server.refusal import RefusedError

__all__ = ["LiveEventsQuery", "live_events"]

_EVERY_S = 1.0
# Looked at so often whether the stream is to end.
_LOOK_S = 0.25


class LiveEventsQuery(BaseModel):
    """For how long; 0: one event."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    seconds: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 20.0


async def live_events(
    figures: Callable[[], Awaitable[LiveFigures]], *, seconds: float, may_go_on: Callable[[], bool]
) -> AsyncIterator[str]:
    """Events until ``seconds`` are over, ``may_go_on`` says no, or there are no figures; the first one at once.

    Args:
        figures: the newest ones.
        seconds: 0: one event.
        may_go_on: asked several times a second.
    """
    loop = asyncio.get_running_loop()
    end_s = loop.time() + seconds
    while may_go_on():
        try:
            found = await figures()
        except (RefusedError, StorageError):
            return
        yield f"event: figures\ndata: {found.model_dump_json()}\n\n"
        next_s = loop.time() + _EVERY_S
        while (left_s := min(next_s, end_s) - loop.time()) > 0.0 and may_go_on():
            await asyncio.sleep(min(left_s, _LOOK_S))
        if loop.time() >= end_s:
            return
