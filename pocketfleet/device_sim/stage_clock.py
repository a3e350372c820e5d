"""Where a simulation's wall time goes: seconds by stage, each second counted once.

Rules:

1. An object that is *watched* for a stage counts the time of its methods; a method that calls another watched object
   hands the clock over while that one is at work.
2. What a generator yields is worked for when it is asked for.
3. What nobody watches is ``other``.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import GeneratorType
from typing import Any, Literal, Protocol, TypeVar, cast, get_args

__all__ = ["Stage", "StageClock", "Watch", "unwatched"]

# ``evaluation``: of the global model; ``server``: updates into the next model; ``codec``: of the
# weights that devices download; their updates are encoded as part of their training.
Stage = Literal["training", "evaluation", "server", "physics", "coordinator", "codec", "events", "disk", "other"]
T = TypeVar("T")


class Watch(Protocol):
    """Takes an object and a stage, returns what to use in the object's place."""

    def __call__(self, target: T, stage: Stage, /) -> T:
        """What stands in for ``target``."""
        ...


def unwatched(target: T, stage: Stage) -> T:  # noqa: ARG001 - a Watch
    """The object itself."""
    return target


class StageClock:
    """Runs while ``running`` is entered; ``seconds`` by stage."""

    def __init__(self) -> None:
        self.seconds: dict[Stage, float] = dict.fromkeys(get_args(Stage), 0.0)
        self._stages: list[Stage] = []
        self._since_s = 0.0

    @contextmanager
    def running(self, stage: Stage = "other") -> Iterator[None]:
        """Count the block's time, but for that of stages within it."""
        self._settle()
        self._stages.append(stage)
        try:
            yield
        finally:
            self._settle()
            self._stages.pop()

    def _settle(self) -> None:
        now_s = time.perf_counter()
        if self._stages:
            self.seconds[self._stages[-1]] += now_s - self._since_s
        self._since_s = now_s

    def watched(self, target: T, stage: Stage) -> T:
        """``target`` with its methods' time counted; attributes are read and set through."""
        return cast("T", _Watched(target, stage, self))


class _Watched:
    def __init__(self, target: Any, stage: Stage, clock: StageClock) -> None:  # noqa: ANN401 - any object
        object.__setattr__(self, "_parts", (target, stage, clock))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as the object's
        target, stage, clock = self._parts
        value = getattr(target, name)
        if not callable(value):
            return value

        def timed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the method's
            with clock.running(stage):
                result = value(*args, **kwargs)
            return _timed_items(result, stage, clock) if isinstance(result, GeneratorType) else result

        return timed

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401 - as the object's
        setattr(self._parts[0], name, value)


def _timed_items(items: Iterator[Any], stage: Stage, clock: StageClock) -> Iterator[Any]:
    while True:
        with clock.running(stage):
            try:
                item = next(items)
            except StopIteration:
                return
        yield item
