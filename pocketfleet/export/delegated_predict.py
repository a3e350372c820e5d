"""A ``predict`` that runs on XNNPACK where that computes what PyTorch computes, and on ExecuTorch's own operators else.

A delegate may keep what it should read anew. So batches of several sizes go through one loaded method in an order that
grows and shrinks, and each is computed with three sets of weights: the ones given, others, and the first ones again.
No set is known when the file is made.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.export import ExportedProgram

from pocketfleet.export.executorch import ExecutorchSession, predict_is_delegated, write_executorch
from pocketfleet.export.footprint import OperatorCost
from pocketfleet.export.gate import SAME_WEIGHTS_TOLERANCE
from pocketfleet.export.gate_report import GateReport, GateRow
from pocketfleet.export.program import Programs
from pocketfleet.export.session import Session
from pocketfleet.export.unsupported import UnsupportedError
from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["check_delegated_predict", "write_fastest_predict"]

_log = logging.getLogger(__name__)

# How far the other weights are from the given ones: beyond any rounding, and small enough that no model explodes.
_NOISE = 0.05
# Factor on buffers and frozen weights; positive, since some are variances.
_SCALE = 1.25


def write_fastest_predict(
    programs: Programs, path: Path, *, check: Callable[[Path], tuple[GateRow, ...]], int8: ExportedProgram | None = None
) -> dict[str, tuple[OperatorCost, ...]]:
    """Write ``path`` with ``predict`` on XNNPACK; again without a delegate where that is wrong or impossible.

    Args:
        programs: traced for ExecuTorch.
        path: of the file.
        check: compares the file's ``predict`` with PyTorch, as ``check_delegated_predict`` does.
        int8: as in ``write_executorch``.

    Raises:
        UnsupportedError: as ``write_executorch``.

    Returns:
        By method, what its operators cost; the file itself says whether ``predict`` is delegated.
    """
    try:
        operators = write_executorch(programs, path, delegate_predict=True, int8=int8)
        if not predict_is_delegated(path) or GateReport(check(path)).passed:
            return operators
    except UnsupportedError:
        raise
    except Exception as exc:  # noqa: BLE001 - whatever a delegate raises, at lowering or when it runs, costs speed only
        _log.info("predict stays on ExecuTorch's own operators: %s", exc)
    return write_executorch(programs, path, int8=int8)


def check_delegated_predict(
    path: Path, programs: Programs, eager: Session, *, weights: Weights, x: torch.Tensor
) -> tuple[GateRow, ...]:
    """Compare ``predict`` of the file at ``path`` with PyTorch.

    Args:
        path: a ``.pte`` file.
        programs: what it was made from.
        eager: of the same task.
        weights: of the model.
        x: inputs ``[examples, ...]``, at least one; reused where there are fewer than a batch needs.
    """
    session = ExecutorchSession(path, programs.signature, max_batch=programs.max_batch)
    return tuple(_compare(session, eager, weights, x, max_batch=programs.max_batch))


def _compare(
    session: Session, eager: Session, weights: Weights, x: torch.Tensor, *, max_batch: int
) -> Iterator[GateRow]:
    x = x[torch.arange(max_batch) % len(x)]
    for size in (max_batch, 1, max(1, max_batch * 5 // 8), max_batch, max(1, max_batch - 1)):
        for which, tensors in (("first", weights), ("other", _others(weights)), ("first again", weights)):
            found = session.predict(tensors, x[:size]).double()
            expected = eager.predict(tensors, x[:size]).double()
            yield GateRow(
                runtime="executorch",
                check=f"delegated predict, batch {size}",
                tensor=f"output of the {which} weights",
                error=float((found - expected).norm()) / max(float(expected.norm()), 1e-30),
                tolerance=SAME_WEIGHTS_TOLERANCE,
            )


def _others(weights: Weights) -> Weights:
    trainable = {
        name: value + _NOISE * _drawn(value, index) if value.is_floating_point() else value
        for index, (name, value) in enumerate(sorted(weights.trainable.items()))
    }
    return Weights(trainable=trainable, buffers=_scaled(weights.buffers), frozen=_scaled(weights.frozen))


def _drawn(like: torch.Tensor, index: int) -> torch.Tensor:
    values = normal(draw_key(0, "delegated_predict", index), like.numel())
    return torch.from_numpy(values).to(like.dtype).reshape(like.shape)


def _scaled(tensors: Tensors) -> Tensors:
    return {name: value * _SCALE if value.is_floating_point() else value for name, value in tensors.items()}
