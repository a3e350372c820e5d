"""Why a model could not be traced, in one sentence: in which module, at which line of the user's, and the way out.

Tried with torch 2.13.0: ``torch.fx.experimental.symbolic_shapes.GuardOnDataDependentSymNode`` and the exceptions of
``torch._subclasses.fake_tensor``.
"""

import sysconfig
import traceback
from pathlib import Path

import torch
from torch import nn

from pocketfleet.training.running_module import RunningModule, error_advice

__all__ = ["OUTSIDE", "BatchBranchError", "untraced_reason"]

# What runs where no module of the model does.
OUTSIDE = "the loss or a metric"

# Code that is nobody's model: torch, this package, and Python's own library.
_LIBRARIES = tuple(
    str(path)
    for path in (Path(torch.__file__).parent, Path(__file__).resolve().parents[1], sysconfig.get_path("stdlib"))
)


class BatchBranchError(ValueError):
    """A model takes another course for other batch sizes.

    Attributes:
        where: the module, as messages name it, and the line.
    """

    def __init__(self, message: str, *, where: str) -> None:
        super().__init__(message)
        self.where = where


def untraced_reason(error: Exception, model: nn.Module, running: RunningModule) -> str:
    """Say what ``error``, raised while tracing ``model``, means.

    Args:
        error: as it was caught, with its traceback.
        model: was traced.
        running: which of its modules were running.
    """
    where = running.text(outside=OUTSIDE)
    said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if isinstance(error, BatchBranchError):
        return (
            f"{error.where} branches on the batch size, or ties itself to one, on either runtime: use x.shape[0], "
            f"which is traced, in place of len(x), and without a branch ({error})"
        )
    where += _own_line(error)
    if _depends_on_values(error) and _averages_over_all_batches(model, running.path):
        return (
            f"{where} averages its statistics over all batches alike (momentum=None), by a count that it takes out of "
            "a tensor, which neither runtime can: give it a number as its momentum, such as torch's own 0.1"
        )
    if _depends_on_values(error):
        return (
            f"{where} branches on values, takes one out by .item(), or has a shape that depends on them, on either "
            f"runtime{_operator(error)}: use torch.where, or a mask ({said})"
        )
    return (
        f"{where} fails while it is traced{_operator(error)}: it must be made of tensor operations whose course "
        f"depends neither on values nor on the batch size ({said}){error_advice(error)}"
    )


def _depends_on_values(error: Exception) -> bool:
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    return isinstance(error, DataDependentOutputException | DynamicOutputShapeException | GuardOnDataDependentSymNode)


def _averages_over_all_batches(model: nn.Module, path: str | None) -> bool:
    module = None if path is None else model.get_submodule(path)
    batch_norm = isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm)
    return batch_norm and module is not None and module.momentum is None


def _operator(error: Exception) -> str:
    """Some of torch's exceptions hold the operator."""
    operator = getattr(error, "func", None)
    return f", by {str(operator).rpartition('.')[0]}" if isinstance(operator, torch._ops.OpOverload) else ""


def _own_line(error: Exception) -> str:
    """The innermost line of the user's own code."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_own_code(frame.filename):
            return f", {Path(frame.filename).name}:{frame.lineno},"
    return ""


def _is_own_code(filename: str) -> bool:
    """Whether a file is the user's."""
    return not filename.startswith(("<", *_LIBRARIES)) and "site-packages" not in filename
