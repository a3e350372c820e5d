"""A cohort's training on one process or several: results in the order of the assignments, whatever finishes first.

Every process computes with one torch thread, so that one process or many give the same bits.
"""

import io
import multiprocessing
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import torch

from pocketfleet.device_sim.child_process import end_with_parent, interrupts_ignored
from pocketfleet.device_sim.client import Assignment, Client, ClientResult
from pocketfleet.errors import PocketfleetError
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["Workers", "one_torch_thread"]

ClientFactory = Callable[[], Client]
# Chunks a process has waiting beside the one it works on: enough never to idle, few enough to bound memory.
_CHUNKS_AHEAD = 2
# Devices in a chunk at most: weights are sent once a chunk, results come back once a chunk.
_CHUNK_DEVICES = 8


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
    """Trains cohorts; use as a context manager.

    Args:
        make_client: builds the client, once in each process; picklable when ``processes`` is above 1.
        processes: 1 trains in this process.
    """

    def __init__(self, make_client: ClientFactory, *, processes: int) -> None:
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None
        self._client: Client | None = None
        if processes == 1:
            self._client = make_client()
        else:
            self._pool = ProcessPoolExecutor(
                processes,
                # Spawned, not forked: a fork of a process that runs threads (torch, arrow) may hang.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(make_client,),
            )
            # The pool starts a process for each call that finds none idle: all of them now, to load side by side.
            with interrupts_ignored():
                for _ in range(processes):
                    self._pool.submit(_loaded)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def train(
        self, assignments: Sequence[Assignment], weights: Weights, server_state: Tensors
    ) -> Iterator[ClientResult]:
        """Yield one result an assignment, in order.

        Raises:
            PocketfleetError: a worker process died.
        """
        if self._client is not None:
            with one_torch_thread():
                for assignment in assignments:
                    yield self._client.train(assignment, weights, server_state)
            return
        assert self._pool is not None
        model = _dumps((weights, server_state))
        size = max(1, min(_CHUNK_DEVICES, -(-len(assignments) // (self._processes * _CHUNKS_AHEAD))))
        chunks = deque(assignments[start : start + size] for start in range(0, len(assignments), size))
        running: deque[Future[bytes]] = deque()
        try:
            while chunks or running:
                while chunks and len(running) < self._processes * _CHUNKS_AHEAD:
                    running.append(self._pool.submit(_train_chunk, _dumps(chunks.popleft()), model))
                yield from pickle.loads(running.popleft().result())
        except BrokenProcessPool as exc:
            raise PocketfleetError(
                "a training process died: it was killed, ran out of memory (then continue with --resume and fewer "
                "engine.processes), or your script starts a simulation without if __name__ == '__main__'"
            ) from exc


def _loaded() -> None:
    """Done once a worker process has made its client."""


# The client of this worker process, made once by ``_start_worker``.
_client: Client | None = None


def _start_worker(make_client: ClientFactory) -> None:
    global _client
    end_with_parent()
    torch.set_num_threads(1)
    _client = make_client()


def _train_chunk(assignments: bytes, model: bytes) -> bytes:
    assert _client is not None
    weights, server_state = pickle.loads(model)
    return _dumps([_client.train(assignment, weights, server_state) for assignment in pickle.loads(assignments)])


class _Pickler(pickle.Pickler):
    """Tensors as plain arrays: torch's own way through a pipe opens a shared-memory file for each."""

    def reducer_override(self, value: Any) -> Any:  # noqa: ANN401 - pickle's signature
        if type(value) is torch.Tensor:
            return torch.from_numpy, (value.numpy(),)
        return NotImplemented


def _dumps(value: object) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=5).dump(value)
    return buffer.getvalue()
