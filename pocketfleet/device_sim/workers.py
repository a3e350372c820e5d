"""A cohort's training on one process or several: results in the order of the chunks, whatever finishes first.

Every process computes with one torch thread, and chunks do not depend on the number of processes, so that one process
or many give the same bits.
"""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Protocol, Self

import torch

from pocketfleet.device_sim.child_process import end_with_parent, interrupts_ignored
from pocketfleet.device_sim.chunk_result import ChunkResult
from pocketfleet.device_sim.cohort import Cohort
from pocketfleet.device_sim.plain_bytes import dumps, loads
from pocketfleet.device_sim.shared_model import AttachedModels, ModelHandle, SharedModel
from pocketfleet.errors import PocketfleetError
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["ChunkTrainer", "ModelVersion", "Trainers", "Workers", "cores", "one_torch_thread"]

# What devices download of a version: weights, and what the algorithm broadcasts.
ModelVersion = tuple[Weights, Tensors]
# Chunks a process has waiting beside the one it works on: enough never to idle, few enough to bound memory.
_CHUNKS_AHEAD = 2


class ChunkTrainer(Protocol):
    """Who trains a chunk: ``client.Client``, or ``batched_client.BatchedClient``."""

    def train_chunk(self, cohort: Cohort, weights: Weights, broadcast: Tensors, device_state: Tensors) -> ChunkResult:
        """Train the devices of a chunk; ``device_state`` is stacked ``[k, ...]``."""
        ...


class Trainers(Protocol):
    """Who trains a cohort: ``Workers``, or more than one machine."""

    def train(
        self,
        chunks: Iterable[Cohort],
        models: Mapping[int, ModelVersion],
        states: Callable[[Cohort], Tensors],
    ) -> Iterator[ChunkResult]:
        """Yield one result a chunk, in order.

        Args:
            chunks: each of one model version.
            models: by version.
            states: the devices' algorithm state, asked for when a chunk is handed out.
        """
        ...


TrainerFactory = Callable[[], ChunkTrainer]


def cores() -> int:
    """Of this machine, that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Compute with one torch thread inside the block; the number before is restored."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Workers:
    """Trains cohorts on this machine; use as a context manager.

    Args:
        make_trainer: builds who trains, once in each process; picklable when ``processes`` is above 1.
        processes: 1 trains in this process.
    """

    def __init__(self, make_trainer: TrainerFactory, *, processes: int) -> None:
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None
        self._trainer: ChunkTrainer | None = None
        self._loading: list[Future[None]] = []
        if processes == 1:
            self._trainer = make_trainer()
        else:
            self._pool = ProcessPoolExecutor(
                processes,
                # Spawned, not forked: a fork of a process that runs threads (torch, arrow) may hang.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(make_trainer,),
            )
            # The pool starts a process for each call that finds none idle: all of them now, to load side by side.
            with interrupts_ignored():
                self._loading = [self._pool.submit(_loaded) for _ in range(processes)]

    def __enter__(self) -> Self:
        """Wait until there is a process to train in, so that a simulation's seconds are of its work."""
        try:
            for loading in self._loading:
                loading.result()
        except BrokenProcessPool as exc:
            raise _died() from exc
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def train(
        self,
        chunks: Iterable[Cohort],
        models: Mapping[int, ModelVersion],
        states: Callable[[Cohort], Tensors],
    ) -> Iterator[ChunkResult]:
        """See ``Trainers``.

        Raises:
            PocketfleetError: a worker process died.
        """
        if self._trainer is not None:
            for chunk in chunks:
                with one_torch_thread():
                    result = self._trainer.train_chunk(chunk, *models[int(chunk.model_version[0])], states(chunk))
                yield result
            return
        try:
            with ExitStack() as stack:
                yield from self._in_processes(chunks, _Shared(models, stack), states)
        except BrokenProcessPool as exc:
            raise _died() from exc

    def _in_processes(
        self, chunks: Iterable[Cohort], shared: "_Shared", states: Callable[[Cohort], Tensors]
    ) -> Iterator[ChunkResult]:
        assert self._pool is not None
        running: deque[Future[bytes]] = deque()
        for chunk in chunks:
            if len(running) >= self._processes * _CHUNKS_AHEAD:
                yield loads(running.popleft().result())
            handle = shared.handle(int(chunk.model_version[0]))
            running.append(self._pool.submit(_train_chunk, dumps((chunk, states(chunk))), handle))
        while running:
            yield loads(running.popleft().result())


def _died() -> PocketfleetError:
    return PocketfleetError(
        "a training process died: it was killed, ran out of memory (then continue with --resume and fewer "
        "engine.processes), or your script starts a simulation without if __name__ == '__main__'"
    )


class _Shared:
    """Versions in shared memory, put there when they are first asked for; given back with ``stack``."""

    def __init__(self, models: Mapping[int, ModelVersion], stack: ExitStack) -> None:
        self._models, self._stack = models, stack
        self._handles: dict[int, ModelHandle] = {}

    def handle(self, version: int) -> ModelHandle:
        if version not in self._handles:
            memory = SharedModel(self._models[version])
            self._stack.callback(memory.close)
            self._handles[version] = memory.handle
        return self._handles[version]


# One trainer a worker process, made when it starts, and the models that it reads.
_trainer: ChunkTrainer | None = None
_models = AttachedModels()


def _loaded() -> None:
    """The first work of a process: to be there."""


def _start_worker(make_trainer: TrainerFactory) -> None:
    global _trainer
    end_with_parent()
    torch.set_num_threads(1)
    _trainer = make_trainer()


def _train_chunk(work: bytes, handle: ModelHandle) -> bytes:
    assert _trainer is not None
    chunk, states = loads(work)
    weights, broadcast = _models.model(handle)
    return dumps(_trainer.train_chunk(chunk, weights, broadcast, states))
