"""Toy bundles, exported once a session."""

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy
from attacked import MEMORY_LIMIT_BYTES, Place, exported_into

from pocketfleet.export.bundle import Bundle
from pocketfleet.export.exporter import export_task
from pocketfleet.training.train_step import StepSettings


@pytest.fixture(scope="session")
def dense_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """One dense layer under plain SGD, batches up to 5."""
    return export_task(
        toy.dense_toy(),
        out=tmp_path_factory.mktemp("dense") / "bundle",
        settings=StepSettings(),
        hyper={"learning_rate": 0.1},
        max_batch=5,
    )


@pytest.fixture(scope="session")
def normalised_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Batch normalisation under a step with every term, batches up to 8."""
    settings = StepSettings(
        momentum=True, nesterov=True, weight_decay=True, proximal=True, clipping=True, correction=True
    )
    return export_task(
        toy.normalised_toy(),
        out=tmp_path_factory.mktemp("normalised") / "bundle",
        settings=settings,
        hyper={"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01, "proximal_mu": 0.1, "max_norm": 0.5},
        max_batch=8,
        convolution="matmul",
    )


@pytest.fixture
def copy(dense_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle to damage."""
    shutil.copytree(dense_bundle.path, tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture(scope="session")
def attacked_bundle(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A bundle to damage, beside files that are none of its business."""
    return exported_into(tmp_path_factory.mktemp("attacked"))


@pytest.fixture
def place(attacked_bundle: Place) -> Place:
    """The same as it was exported."""
    attacked_bundle.restore()
    return attacked_bundle


@pytest.fixture(scope="module")
def little_memory(attacked_bundle: Place) -> Iterator[None]:
    """Fails where a module's tests took much more memory than there was before."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    # Kilobytes on Linux.
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY_LIMIT_BYTES
