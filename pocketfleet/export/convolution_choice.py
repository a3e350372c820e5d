"""Which convolutions a model gets on ExecuTorch: products or the runtime's own kernels, by time on this machine.

1. A training step and a prediction in eager PyTorch show the convolutions of model and loss.
2. Each kind is timed by itself, forward and both gradients, at the largest batch, on one thread: first all as products,
   then with the runtime's kernels, the smallest first, until these have taken as long as all products. A model whose
   kernels would take minutes is so decided in a moment.
3. The kernels must be a fifth faster: between two that are alike, noise must not decide from one export to the next.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pocketfleet.export.convolution import covers
from pocketfleet.export.decompositions import Convolution, decomposition_table
from pocketfleet.training.examples import Examples
from pocketfleet.training.train_step import TrainState, TrainStep, predict
from pocketfleet.training.weights import Weights

__all__ = ["chosen_convolution"]

aten = torch.ops.aten
_NEEDED_SPEEDUP = 1.2
# The quickest of so many runs, after one that is left out.
_RUNS = 2


class _Kind(NamedTuple):
    """A convolution by its shapes."""

    x: tuple[int, ...]
    weight: tuple[int, ...]
    out: tuple[int, ...]
    # Stride, padding, dilation, transposed, output padding, groups, as ``aten.convolution`` takes them.
    options: tuple[Any, ...]

    @property
    def work(self) -> int:
        """Multiplications forward."""
        return math.prod(self.out) * math.prod(self.weight[1:])


# Torch leaves its mode's hooks without types.
class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the convolutions inside this context that can be products."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kinds: Counter[_Kind] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an overload
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - what the operator returns
        del types
        out = func(*args, **(kwargs or {}))
        if func is aten.convolution.default and covers(args[0], args[1], transposed=args[6]):
            options = tuple(tuple(value) if isinstance(value, list) else value for value in args[3:])
            self.kinds[_Kind(tuple(args[0].shape), tuple(args[1].shape), tuple(out.shape), options)] += 1
        return out


def chosen_convolution(
    step: TrainStep, weights: Weights, batch: Examples, *, wanted: Convolution | None = None
) -> Convolution | None:
    """The way that is wanted, else the faster one.

    Args:
        step: of the model and the loss that are exported; the model is only called.
        weights: of the model.
        batch: of the size to be fast at.
        wanted: the way, if the caller settles it.

    Returns:
        ``None`` where no convolution can be a product, so that there is no choice.
    """
    kinds = _kinds(step, weights, batch)
    if wanted is not None or not kinds:
        return wanted if kinds else None
    limit_s = _total_s(kinds, "matmul", limit_s=math.inf) / _NEEDED_SPEEDUP
    return "native" if _total_s(kinds, "native", limit_s=limit_s) < limit_s else "matmul"


def _kinds(step: TrainStep, weights: Weights, batch: Examples) -> Mapping[_Kind, int]:
    """Convolutions and how often each is called, in the mode that calls it more often, the smallest first."""
    state = TrainState.start(weights, step.settings)
    # Masks that keep every value.
    training = _seen(lambda: step.gradient(state, batch.x, batch.y, lambda _, shape: torch.ones(tuple(shape))))
    predicting = _seen(lambda: predict(step.model, weights, batch.x))
    return dict(sorted((training | predicting).items(), key=lambda item: item[0].work))


def _seen(call: Callable[[], object]) -> Counter[_Kind]:
    """What a call convolves; one that fails does so once more when it is traced, where the error finds its words."""
    watch = _Watch()
    with watch, suppress(Exception):
        call()
    return watch.kinds


def _total_s(kinds: Mapping[_Kind, int], way: Convolution, *, limit_s: float) -> float:
    """Seconds of all convolutions of a model, or of those until the limit was reached."""
    total_s = 0.0
    for kind, count in kinds.items():
        if total_s < limit_s:
            total_s += count * _seconds(kind, way, limit_s=limit_s)
    return total_s


def _seconds(kind: _Kind, way: Convolution, *, limit_s: float) -> float:
    """Of the quickest run, or of the first one where that alone reaches the limit."""
    from pocketfleet.export.executorch import Methods, lower, one_thread

    inputs = [torch.ones(kind.x), torch.ones(kind.weight), torch.ones(kind.out)]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "convolution.pte"
        path.write_bytes(lower({"forward": _program(kind, way, inputs)}, {}).buffer)
        methods = Methods(path, ["forward"])
    with one_thread():
        first_s = _timed(lambda: methods.run("forward", inputs))
        if first_s >= limit_s:
            return first_s
        return min(_timed(lambda: methods.run("forward", inputs)) for _ in range(_RUNS))


def _timed(call: Callable[[], object]) -> float:
    before_s = time.perf_counter()
    call()
    return time.perf_counter() - before_s


def _program(kind: _Kind, way: Convolution, inputs: list[torch.Tensor]) -> torch.export.ExportedProgram:
    from torch.fx.experimental.proxy_tensor import make_fx

    def forward_and_backward(x: torch.Tensor, weight: torch.Tensor, grad: torch.Tensor) -> list[torch.Tensor]:
        out = aten.convolution.default(x, weight, None, *kind.options)
        gradients = aten.convolution_backward.default(grad, x, weight, None, *kind.options, [True, True, False])
        return [out, *gradients[:2]]

    module = make_fx(forward_and_backward, decomposition_table=decomposition_table("executorch", convolution=way))(
        *inputs
    )
    return torch.export.export(module, tuple(inputs), strict=False)
