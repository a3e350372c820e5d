"""Bundles exported once a session, and what runs the command line as a user would."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from pocketfleet import Bundle, export_bundle
from pocketfleet.training.task import load_task
from pocketfleet.training.train_step import StepSettings


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """Two cores are shared with whatever else runs; bits depend on the number of threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def boston_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Boston for plain SGD, batches up to 8."""
    return export_bundle(
        load_task("boston"),
        out=tmp_path_factory.mktemp("boston") / "bundle",
        settings=StepSettings(),
        hyper={"learning_rate": 0.001},
        max_batch=8,
        task_path="boston",
    )


@pytest.fixture(scope="session")
def mnist_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """MNIST for SGD with momentum, batches up to 16."""
    return export_bundle(
        load_task("mnist"),
        out=tmp_path_factory.mktemp("mnist") / "bundle",
        settings=StepSettings(momentum=True),
        hyper={"learning_rate": 0.05, "momentum": 0.9},
        max_batch=16,
        task_path="mnist",
    )


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
