"""What runs in a cluster's process: one trainer, made once, and the model versions that it read last.

``cluster`` is the side that hands out chunks. What a trainer raises travels back as a value, since Ray would wrap it.
"""

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pocketfleet import __version__
from pocketfleet.device_sim.chunk_result import ChunkResult
from pocketfleet.device_sim.plain_bytes import dumps, loads
from pocketfleet.device_sim.workers import ChunkTrainer
from pocketfleet.errors import InputError, PocketfleetError

__all__ = ["ClusterActor", "FolderTrainerFactory", "Setup", "installed", "result_of"]

# Makes a trainer, given the folder of the bundle's files on the machine where it runs.
FolderTrainerFactory = Callable[[str], ChunkTrainer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What an actor needs before its first chunk; the same for all.

    Attributes:
        make_trainer: bytes of a ``FolderTrainerFactory``: read after ``path`` is searched for imports.
        files: contents by relative path, written to a temporary folder that the factory is given.
        folder: the working folder of who hands out; the actor works there too if the machine has it.
        path: where imports are searched there; searched last here, as far as there is such a folder.
        versions: what ``installed`` gave there.
    """

    make_trainer: bytes
    files: Mapping[str, bytes]
    folder: str
    path: tuple[str, ...]
    versions: Mapping[str, str]


def installed() -> dict[str, str]:
    """Versions on which the bits of a training depend."""
    return {"pocketfleet": __version__, "torch": torch.__version__, "numpy": version("numpy")}


def result_of(answer: bytes) -> ChunkResult | None:
    """What a call of an actor gave.

    Raises:
        Exception: what was raised there.
    """
    result = loads(answer)
    if isinstance(result, Exception):
        raise result
    assert result is None or isinstance(result, ChunkResult)
    return result


class ClusterActor:
    """One torch thread, one trainer; calls come one after another."""

    # Chunks of a buffered round may change between two versions.
    _KEPT = 2

    def __init__(self) -> None:
        self._trainer: ChunkTrainer | None = None
        self._models: dict[str, Any] = {}
        self._files: tempfile.TemporaryDirectory[str] | None = None

    def load(self, setup: Setup) -> bytes:
        """Make the trainer; for ``result_of``."""
        return _answer(lambda: self._load(setup))

    def train(self, work: bytes, model: list[Any]) -> bytes:
        """Train a chunk; for ``result_of``.

        Args:
            work: of the chunk and its devices' states.
            model: the reference of the version's bytes, in a list: Ray would fetch it for every chunk.
        """
        return _answer(lambda: self._train(work, model[0]))

    def close(self) -> None:
        """Remove what was written to disk."""
        if self._files is not None:
            self._files.cleanup()

    def _load(self, setup: Setup) -> None:
        torch.set_num_threads(1)
        _check_alike(setup.versions)
        if Path(setup.folder).is_dir():
            os.chdir(setup.folder)
        sys.path += [entry for entry in setup.path if entry not in sys.path and Path(entry).is_dir()]
        self._files = tempfile.TemporaryDirectory(prefix="pocketfleet-", ignore_cleanup_errors=True)
        for name, content in setup.files.items():
            path = Path(self._files.name, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self._trainer = loads(setup.make_trainer)(self._files.name)

    def _train(self, work: bytes, model: Any) -> ChunkResult:  # noqa: ANN401 - Ray has no types here
        assert self._trainer is not None
        chunk, states = loads(work)
        weights, broadcast = self._model(model)
        return self._trainer.train_chunk(chunk, weights, broadcast, states)

    def _model(self, reference: Any) -> Any:  # noqa: ANN401 - Ray has no types here
        import ray

        key = reference.hex()
        if key not in self._models:
            while len(self._models) >= self._KEPT:
                del self._models[next(iter(self._models))]
            self._models[key] = loads(ray.get(reference))
        return self._models[key]


def _check_alike(versions: Mapping[str, str]) -> None:
    here = installed()
    if here != versions:
        names = [name for name in here if here[name] != versions.get(name)]
        raise InputError(
            f"the machine {platform.node()} of the cluster has "
            + ", ".join(f"{name} {here[name]} (here: {versions.get(name)})" for name in names)
            + ": results would differ; install the same versions on all machines"
        )


def _answer(work: Callable[[], ChunkResult | None]) -> bytes:
    try:
        return dumps(work())
    except Exception as exc:  # noqa: BLE001 - raised again by result_of
        text = traceback.format_exc()
        exc.add_note(f"in a process of the cluster:\n{text}")
        try:
            answer = dumps(exc)
            loads(answer)
        except Exception:  # noqa: BLE001 - whatever its own pickling raises
            return dumps(PocketfleetError(f"training failed: {type(exc).__name__}: {exc}\n{text}"))
        return answer
