"""Keeps what exporters and runtimes say about themselves off the user's terminal, one named message at a time.

Tried with torch 2.13.0, torchao as executorch 1.5.1 brings it, and executorch 1.5.1.
"""

import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr

__all__ = ["CaughtText", "caught_stderr", "quiet_export", "quiet_stderr"]

# Loggers that report, while programs are exported, on optional parts that are not installed.
_LOGGERS = (
    "torchao",  # its CUDA extensions do not load without CUDA
    "torch.utils._pytree",  # torchao registers an enumeration in a way that torch has deprecated
    "torch.onnx._internal.exporter._registration",  # torchvision's operators are not installed
)
# Warnings that third-party code raises about other third-party code: message (a regular expression) and category.
_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    # torch.export copies tree specifications through copyreg.
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),
    # executorch.exir reads its tables, and finds its flatbuffer schemas, by the old functions of importlib.resources.
    (r"(read_text|read_binary|open_text) is deprecated\. Use files\(\) instead", DeprecationWarning),
    # executorch's Python runtime, on being imported; its category is a class of its own.
    (r"This API is experimental and subject to change without notice", Warning),
    # torch's quantization observers, imported with executorch.exir, are script methods.
    (r"`torch\.jit\.script_method` is deprecated", DeprecationWarning),
)


@contextmanager
def _logger_at(name: str, level: int) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def quiet_export() -> Iterator[None]:
    """Silence the loggers and warnings listed above; anything else passes."""
    with ExitStack() as stack:
        for name in _LOGGERS:
            stack.enter_context(_logger_at(name, logging.ERROR))
        stack.enter_context(warnings.catch_warnings())
        for message, category in _WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield


class CaughtText:
    """What was written; complete once the context is left."""

    def __init__(self) -> None:
        self.text = ""


@contextmanager
def caught_stderr() -> Iterator[CaughtText]:
    """Keep what native code writes during a short call, to where ``quiet_stderr`` drops it."""
    caught, through_python = CaughtText(), io.StringIO()
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        try:
            os.dup2(sink.fileno(), 2)
            with redirect_stderr(through_python):
                yield caught
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            sink.seek(0)
            caught.text = sink.read().decode(errors="replace") + through_python.getvalue()


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop what native code writes during a short call, to file descriptor 2 or through Python's ``sys.stderr``."""
    sys.stderr.flush()
    saved = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        os.dup2(saved, 2)
        os.close(sink)
        os.close(saved)
