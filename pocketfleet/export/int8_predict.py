"""``predict_int8(x)``: a quantised copy of the weights in the same ``.pte`` file, and how far it is from ``float32``.

It holds the weights of the time of export. **It never sees trained weights**: a phone that has trained asks
``predict``, which takes them as inputs, and this method only for the model as it was downloaded.

1. Quantisation is post-training, PT2E, by XNNPACK's own quantizer: symmetric ``int8``, weights a channel, activations a
   tensor with the ranges seen on calibration examples. Inputs and outputs stay ``float32``.
2. The program is exported for one example more than the largest batch. Torch chooses between convolution kernels at 16
   examples; a range that ended there would leave one size only, and the batch would no longer be dynamic.

Tried with torch 2.13.0, executorch 1.5.1 and the torchao that comes with it.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from pocketfleet.errors import InputError
from pocketfleet.export.executorch import INT8_METHOD, Methods
from pocketfleet.export.int8_accuracy import Int8Accuracy
from pocketfleet.export.model_copy import model_copy
from pocketfleet.export.program import plain_operators
from pocketfleet.export.quiet import quiet_export
from pocketfleet.training.examples import Examples
from pocketfleet.training.task import Task
from pocketfleet.training.train_step import predict
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["calibration_split", "compare_int8", "quantised_program"]

# Ranges of activations settle within some hundred examples; more only take time.
_MOST_EXAMPLES = 256


def calibration_split(examples: Examples) -> tuple[Examples, Examples]:
    """Examples to calibrate with and others to compare on, a few hundred each; of a single example, twice the same."""
    half = max(1, len(examples) // 2)
    calibration = examples.take(torch.arange(min(half, _MOST_EXAMPLES)))
    if len(examples) == 1:
        return calibration, calibration
    return calibration, examples.take(torch.arange(half, min(len(examples), half + _MOST_EXAMPLES)))


def quantised_program(model: nn.Module, weights: Weights, calibration: Examples, max_batch: int) -> ExportedProgram:
    """``model`` with ``weights`` as a quantised program ``(x) -> output``, for batches of 1 to ``max_batch``.

    Args:
        model: only its structure is read.
        weights: what is quantised.
        calibration: at least one example; all are run through the model, so that some hundred are enough.
        max_batch: the largest batch.

    Raises:
        InputError: the model cannot be quantised; the message holds the reason.
    """
    batches = torch.split(calibration.x, max_batch)
    x = calibration.x[torch.arange(max_batch) % len(calibration)]
    shapes = ({0: Dim("batch", min=1, max=max_batch + 1)},) if max_batch > 1 else None
    with quiet_export(), plain_operators(), torch.no_grad():
        # Exporting runs the user's model, which may raise anything.
        try:
            exported = torch.export.export(model_copy(model, weights), (x,), dynamic_shapes=shapes, strict=False)
            quantised = _quantised(exported, batches)
            return torch.export.export(quantised, (x,), dynamic_shapes=shapes, strict=False)
        except Exception as exc:
            reason = (str(exc).splitlines() or [""])[0]
            raise InputError(
                f"the model cannot be quantised to int8: {type(exc).__name__}: {reason}; export it without int8"
            ) from exc


def _quantised(exported: ExportedProgram, batches: tuple[torch.Tensor, ...]) -> Any:  # noqa: ANN401 - a graph module
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import (  # type: ignore[import-untyped]
        convert_pt2e,
        prepare_pt2e,
    )

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(exported.module(), quantizer)
    for batch in batches:
        prepared(batch)
    return convert_pt2e(prepared)


def compare_int8(
    path: Path, task: Task, model: nn.Module, weights: Weights, examples: Examples, *, max_batch: int
) -> Int8Accuracy:
    """Run ``predict_int8`` of the file at ``path``.

    Args:
        path: a ``.pte`` file with that method.
        task: gives loss and metrics.
        model: only its structure is read.
        weights: those that were quantised.
        examples: others than those of the calibration, at least one.
        max_batch: the largest batch that the program accepts.
    """
    methods = Methods(path, [INT8_METHOD])
    outputs = [methods.run(INT8_METHOD, [batch.contiguous()])[0] for batch in torch.split(examples.x, max_batch)]
    found = torch.cat(outputs)
    expected = torch.cat([predict(model, weights, batch) for batch in torch.split(examples.x, max_batch)])
    return Int8Accuracy(
        examples=len(examples),
        output_error=float((found - expected).norm()) / max(float(expected.norm()), 1e-30),
        float32=_scores(task, expected, examples.y),
        int8=_scores(task, found, examples.y),
    )


def _scores(task: Task, output: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    scores: Tensors = {"loss": task.loss(output, target), **task.metrics(output, target)}
    return {name: float(value.to(torch.float32).mean()) for name, value in scores.items()}
