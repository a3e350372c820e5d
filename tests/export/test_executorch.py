"""What we ask of ExecuTorch, and the versions with which it was seen to work."""

import importlib.metadata

import pytest

from pocketfleet.export import executorch
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.manifest import PTE_FILE


def test_tried_versions() -> None:
    # A new version goes here once the tests of this folder pass with it; the adapters lean on its private names.
    assert importlib.metadata.version("executorch") in {"1.5.1"}
    assert importlib.metadata.version("torch").partition("+")[0] in {"2.13.0"}


def test_planned_memory_is_read_from_the_file(normalised_bundle: Bundle) -> None:
    planned = executorch.planned_memory(normalised_bundle.path / PTE_FILE)
    assert planned == normalised_bundle.footprint("executorch").planned_bytes
    assert planned["train_step"] > planned["predict"]
    # The columns of the first convolution: 2 channels x 9 places x 64 windows x 8 examples x 4 bytes.
    assert planned["predict"] >= 2 * 9 * 64 * 8 * 4


def test_threads_are_limited_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    from executorch.extension.pybindings import _C

    before = _C._threadpool_get_thread_count()
    capfd.readouterr()
    try:
        executorch.limit_threads(1)
        assert _C._threadpool_get_thread_count() == 1
    finally:
        executorch.limit_threads(before)
    assert capfd.readouterr().err == ""


def test_no_stock_convolution_or_pool_gradient_is_left(normalised_bundle: Bundle) -> None:
    names = {operator.name for operator in normalised_bundle.footprint("executorch").train_step}
    assert {"as_strided_copy", "mm", "bmm"} <= names
    assert not names & {"convolution", "convolution_backward", "avg_pool2d_backward"}


def test_one_thread_is_given_back() -> None:
    from executorch.extension.pybindings import _C

    before = _C._threadpool_get_thread_count()
    executorch.limit_threads(2)
    try:
        with executorch.one_thread():
            assert _C._threadpool_get_thread_count() == 1
        assert _C._threadpool_get_thread_count() == 2
    finally:
        executorch.limit_threads(before)
