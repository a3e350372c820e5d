"""Bundles exported once a session, and what runs the command line as a user would."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from pocketfleet import Bundle


# Files that take so long that a process which came to one last would end long after the others.
LONGEST = (Path(__file__).parent / "e2e" / "test_docs.py",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    items.sort(key=lambda item: item.path not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """Two cores are shared with whatever else runs; bits depend on the number of threads."""
    import torch

    torch.set_num_threads(1)


def _exported(task: str, factory: pytest.TempPathFactory, *, max_batch: int, name: str = "", **terms: bool) -> "Bundle":
    """A task's bundle, exported by the first of the session's processes that asks; several of a task have names."""
    from pocketfleet import Bundle, export_task
    from pocketfleet.training.task import load_task
    from pocketfleet.training.train_step import StepSettings

    settings, name = StepSettings(**terms), name or task
    hyper = {"learning_rate": 0.001, "momentum": 0.9}
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    out = shared / f"{name}-bundle"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            export_task(load_task(task), out=out, settings=settings, hyper=hyper, max_batch=max_batch, task_path=task)
    return Bundle.load(out)


@pytest.fixture(scope="session")
def boston_bundle(tmp_path_factory: pytest.TempPathFactory) -> "Bundle":
    """Boston for plain SGD, batches up to 8."""
    return _exported("boston", tmp_path_factory, max_batch=8)


@pytest.fixture(scope="session")
def scaffold_bundle(tmp_path_factory: pytest.TempPathFactory) -> "Bundle":
    """Boston for SCAFFOLD, plain SGD with a correction, batches up to 8."""
    return _exported("boston", tmp_path_factory, max_batch=8, name="scaffold", correction=True)


@pytest.fixture(scope="session")
def mnist_bundle(tmp_path_factory: pytest.TempPathFactory) -> "Bundle":
    """MNIST for SGD with momentum, batches up to 16."""
    return _exported("mnist", tmp_path_factory, momentum=True, max_batch=16)


class Called(NamedTuple):
    """What a call of the program printed, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def pocketfleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Called]:
    """The program ``pocketfleet`` in this process, started in an empty folder."""
    from pocketfleet.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Called:
        monkeypatch.setattr("sys.argv", ["pocketfleet", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Called(int(ended.value.code or 0), printed.out, printed.err)

    return call
