"""Toy bundles, exported once a session."""

import shutil
from pathlib import Path

import pytest
import toy

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
    )


@pytest.fixture
def copy(dense_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle to damage."""
    shutil.copytree(dense_bundle.path, tmp_path / "bundle")
    return tmp_path / "bundle"
