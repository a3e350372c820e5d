"""A cohort's training on the machines of a Ray cluster: the same chunks, results and order as ``workers.Workers``.

1. One actor a CPU makes its trainer once, so the data is placed once; a model version is broadcast once a round.
2. Results are yielded in the order of the chunks: who sums them gets the bits that one process gives.
3. A chunk whose actor or machine dies, or whose result is lost with it, is computed again by another actor.
4. Actors that died are replaced while the cluster has room, machines that join are used from the next round on. With
   nobody left it is an error; nothing waits for ever.

Tried with Ray 2.60; ray is imported where it is used, since it is an extra.
"""

import importlib.util
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pocketfleet.device_sim.chunk_result import ChunkResult
from pocketfleet.device_sim.cluster_actor import ClusterActor, FolderTrainerFactory, Setup, installed, result_of
from pocketfleet.device_sim.cohort import Cohort
from pocketfleet.device_sim.plain_bytes import dumps
from pocketfleet.device_sim.workers import ModelVersion, cores
from pocketfleet.errors import InputError, PocketfleetError
from pocketfleet.training.weights import Tensors

__all__ = ["RayWorkers", "check_ray"]

# Chunks that an actor has, the one it works on included: enough never to idle, few enough to bound memory.
_CHUNKS_AHEAD = 2
# Actors that one chunk may take with it before it is thought to be the reason.
_DEATHS_A_CHUNK = 3
# How often to look whether the cluster has room while nobody trains, and for how long actors may take to clean up.
_LOOK_S, _CLOSE_S = 1.0, 5.0
_GO_ON = "continue with --resume when the cluster has machines again, or with --set engine.backend=processes"


def check_ray() -> None:
    """Whether the extra is installed.

    Raises:
        InputError: it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            "engine.backend is \"ray\", and ray is not installed: pip install 'pocketfleet[cluster]', or set "
            'engine.backend to "processes"'
        )


@dataclass(slots=True, eq=False)
class _Job:
    """A chunk that was handed out or waits for it; kept until its result is there."""

    work: bytes
    model: Any
    result: ChunkResult | None = None
    handed_out: bool = False
    deaths: int = 0


@dataclass(slots=True, eq=False)
class _Actor:
    """A process of the cluster and its chunks, the one that it works on first."""

    handle: Any
    jobs: deque[_Job] = field(default_factory=deque)


class RayWorkers:
    """Trains cohorts on a Ray cluster; use as a context manager.

    A connection that this process has already is used, and left open.

    Args:
        make_trainer: builds who trains, once in each actor; picklable. It is given the folder of ``files`` there.
        processes: actors at most; 0: one a CPU of the cluster.
        address: such as ``"10.0.0.1:6379"``, or ``"auto"`` on one of the cluster's machines; empty: a Ray of this
            machine alone, which ends with the block.
        files: contents by relative path, needed by the trainers.
        patience_s: for how long to wait for a first actor, in real seconds. Assumed: five minutes are enough to import
            torch from a network's disk.
    """

    def __init__(
        self,
        make_trainer: FolderTrainerFactory,
        *,
        processes: int = 0,
        address: str = "",
        files: Mapping[str, bytes] | None = None,
        patience_s: float = 300.0,
    ) -> None:
        check_ray()
        self._processes, self._address, self._patience_s = processes, address, patience_s
        self._setup = Setup(
            make_trainer=dumps(make_trainer),
            files=files or {},
            folder=str(Path.cwd()),
            path=(*filter(None, sys.path), str(Path.cwd())),
            versions=installed(),
        )
        self._connected = False
        self._ready: list[_Actor] = []
        self._starting: dict[Any, _Actor] = {}
        self._running: dict[Any, tuple[_Actor, _Job]] = {}
        self._deaths = 0
        self._last_words = "the cluster has no CPU"

    @property
    def deaths(self) -> int:
        """Actors that died so far."""
        return self._deaths

    def __enter__(self) -> Self:
        """Connect, and wait until the actors are there.

        Raises:
            InputError: no cluster answers, or a machine has other versions than this one.
            PocketfleetError: no actor can start.
        """
        import ray

        self._connected = _connect(self._address, self._processes)
        try:
            self._placed = ray.put(self._setup)
            self._grow()
            self._await_start()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def train(
        self,
        chunks: Iterable[Cohort],
        models: Mapping[int, ModelVersion],
        states: Callable[[Cohort], Tensors],
    ) -> Iterator[ChunkResult]:
        """See ``workers.Trainers``.

        Raises:
            PocketfleetError: no actor is left, or a chunk takes one actor after another with it.
        """
        self._grow()
        broadcast = _Broadcast(models)
        coming = iter(chunks)
        window: deque[_Job] = deque()
        try:
            while True:
                for chunk in coming:
                    window.append(_Job(dumps((chunk, states(chunk))), broadcast.reference(chunk)))
                    if len(window) >= _CHUNKS_AHEAD * max(1, len(self._ready)):
                        break
                if not window:
                    return
                self._hand_out(window)
                while window[0].result is None:
                    self._await_work()
                    self._hand_out(window)
                result = window.popleft().result
                assert result is not None
                yield result
        finally:
            # Left early: what still runs is of no use.
            for actor in self._ready:
                actor.jobs.clear()
            self._running.clear()

    def _await_start(self) -> None:
        """Wait until all actors are there, so that a simulation's seconds are of its work; or for some of them."""
        end_s = time.monotonic() + self._patience_s
        while self._starting and time.monotonic() < end_s:
            self._look()
            if self._deaths:
                raise PocketfleetError(
                    "a training process of the cluster does not start; pocketfleet must be installed alike on all "
                    f"machines: {self._last_words}"
                )
        if not self._ready:
            raise self._nobody()

    def _hand_out(self, window: Iterable[_Job]) -> None:
        """Give waiting jobs, the first ones first, to the actors that have least to do."""
        for job in window:
            if job.handed_out:
                continue
            actor = min(self._ready, key=lambda actor: len(actor.jobs), default=None)
            if actor is None or len(actor.jobs) >= _CHUNKS_AHEAD:
                return
            reference = actor.handle.train.remote(job.work, [job.model])
            actor.jobs.append(job)
            self._running[reference] = (actor, job)
            job.handed_out = True

    def _await_work(self) -> None:
        """Wait until an actor has finished, started or died; an error where none is left."""
        end_s = time.monotonic() + self._patience_s
        self._look()
        while not self._ready:
            if not self._starting:
                self._grow()
            if not self._starting or _cpus() == 0 or time.monotonic() > end_s:
                raise self._nobody()
            self._look()

    def _look(self) -> None:
        """Take what is there of answers; waits for a moment at most."""
        import ray

        waited = [*self._running, *self._starting]
        for reference in ray.wait(waited, num_returns=1, timeout=_LOOK_S)[0]:
            if reference in self._starting:
                self._started(reference)
            else:
                self._finished(reference)

    def _started(self, reference: Any) -> None:  # noqa: ANN401 - Ray has no types here
        actor = self._starting.pop(reference)
        answer = self._answer(reference)
        if answer is None:
            self._bury(actor)
        else:
            result_of(answer)
            self._ready.append(actor)

    def _finished(self, reference: Any) -> None:  # noqa: ANN401 - Ray has no types here
        actor, job = self._running.pop(reference)
        answer = self._answer(reference)
        if answer is not None:
            actor.jobs.remove(job)
            job.result = result_of(answer)
            return
        self._ready.remove(actor)
        self._bury(actor)
        self._running = {other: (of, what) for other, (of, what) in self._running.items() if of is not actor}
        # It worked on the first; the others only waited.
        actor.jobs[0].deaths += 1
        if actor.jobs[0].deaths >= _DEATHS_A_CHUNK:
            raise PocketfleetError(
                f"one chunk of devices has ended {_DEATHS_A_CHUNK} processes of the cluster, the last one because: "
                f"{self._last_words}; if they ran out of memory, continue with --resume and fewer engine.processes"
            )
        for waiting in actor.jobs:
            waiting.handed_out = False
        self._grow()

    def _answer(self, reference: Any) -> bytes | None:  # noqa: ANN401 - Ray has no types here
        """What an actor answered; ``None`` where it died, or its answer is lost."""
        import ray
        from ray import exceptions

        try:
            answer: bytes = ray.get(reference)
        except (exceptions.RayTaskError, exceptions.ObjectStoreFullError, exceptions.OutOfDiskError) as exc:
            raise PocketfleetError(f"a process of the cluster cannot answer: {exc}") from exc
        except exceptions.RayError as exc:
            self._last_words = " ".join(str(exc).split())
            return None
        return answer

    def _bury(self, actor: _Actor) -> None:
        import ray

        self._deaths += 1
        # One whose answer alone was lost is ended too: the machine that held it is gone.
        ray.kill(actor.handle)

    def _grow(self) -> None:
        """Start as many actors as there are CPUs, or as were asked for; they are used as soon as they answer."""
        import ray

        room = _cpus()
        remote = ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(ClusterActor)
        while len(self._ready) + len(self._starting) < min(self._processes or room, room):
            actor = _Actor(remote.remote())
            self._starting[actor.handle.load.remote(self._placed)] = actor

    def _nobody(self) -> PocketfleetError:
        return PocketfleetError(f"nobody is left in the cluster to train ({self._last_words}): {_GO_ON}")

    def _leave(self) -> None:
        """End the actors; end the connection too if it was opened here."""
        import ray
        from ray.exceptions import RayError

        with suppress(RayError):
            closing = [actor.handle.close.remote() for actor in self._ready if self._setup.files]
            if closing:
                ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_S)
        for actor in (*self._ready, *self._starting.values()):
            ray.kill(actor.handle)
        self._ready.clear()
        self._starting.clear()
        self._running.clear()
        if self._connected:
            ray.shutdown()


class _Broadcast:
    """References of a round's versions, put into the object store when they are first asked for."""

    def __init__(self, models: Mapping[int, ModelVersion]) -> None:
        self._models = models
        self._references: dict[int, Any] = {}

    def reference(self, chunk: Cohort) -> Any:  # noqa: ANN401 - Ray has no types here
        import ray

        version = int(chunk.model_version[0])
        if version not in self._references:
            self._references[version] = ray.put(dumps(self._models[version]))
        return self._references[version]


def _cpus() -> int:
    """Of all machines that are alive."""
    import ray

    return int(ray.cluster_resources().get("CPU", 0))


def _connect(address: str, processes: int) -> bool:
    """Whether a connection was opened: there may be one already."""
    # Nothing is sent to Ray's makers unless the user says so; the second keeps Ray from hiding what it then warns of.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        there = ray.get_runtime_context().gcs_address
        if address not in {"", "auto", there}:
            raise InputError(f'engine.address is "{address}", and this process is connected to {there}: leave it out')
        return False
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        local = {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        ray.init(num_cpus=processes or cores(), **local, **quiet)
        return True
    try:
        ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError, RayError) as exc:
        raise InputError(
            f'engine.address "{address}": no Ray cluster that this machine is part of answers there ({exc}); start one '
            "with ray start, or leave engine.address empty for this machine alone"
        ) from exc
    return True
