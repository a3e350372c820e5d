"""Programs to ONNX files of standard operators, and the session that runs them on the stock ONNX Runtime.

Tried with torch 2.13.0, onnx 1.22, onnxscript 0.7.2, onnxruntime 1.32.0. Graphs are written without onnxscript's
optimizer, which drops an added constant of 1e-8 as if it were 0; the runtime optimises when it loads.
"""

from pathlib import Path
from typing import Any

import torch

from pocketfleet.errors import InputError
from pocketfleet.export.footprint import OperatorCost, pair_costs
from pocketfleet.export.manifest import onnx_file
from pocketfleet.export.onnx_counting import count_onnx_file
from pocketfleet.export.program import METHODS, Programs, Signature
from pocketfleet.export.quiet import quiet_export
from pocketfleet.export.session import FlatSession

__all__ = ["MINIMUM_VERSION", "OPSET", "OnnxSession", "count_onnx", "write_onnx"]

# The first opset with everything that the programs use (ScatterElements with a sum came with 16, ReduceSum's axes
# as an input with 13, Split's num_outputs with 18), and what torch's exporter writes natively.
OPSET = 18
# The oldest onnxruntime that reads opset 18 in ONNX's file version 10 (its table of versions); tried with 1.32.0.
MINIMUM_VERSION = "1.18"


def write_onnx(programs: Programs, folder: Path) -> None:
    """Write ``train_step.onnx``, ``predict.onnx`` and ``evaluate.onnx`` into ``folder``; inputs are named by label.

    Raises:
        InputError: an operator has no standard ONNX form.
    """
    with quiet_export():
        from torch.onnx import OnnxExporterError

        for method in METHODS:
            try:
                _write_method(programs, method, folder / onnx_file(method))
            except OnnxExporterError as exc:
                raise InputError(f"an operator of {method} has no standard ONNX form: {exc.__cause__ or exc}") from exc


def _write_method(programs: Programs, method: str, path: Path) -> None:
    signature = programs.signature.method(method)
    exported = torch.onnx.export(
        programs.graphs[method],
        input_names=[spec.label for spec in signature.inputs],
        output_names=[f"{spec.label}/out" for spec in signature.outputs],
        opset_version=OPSET,
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    assert exported is not None
    proto = exported.model_proto
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in proto.graph.node if node.domain})
    if foreign or proto.functions:
        names = foreign or [function.name for function in proto.functions]
        raise InputError(f"{method} needs operators that are not standard ONNX: {names}")
    _forget_origin(proto.graph)
    path.write_bytes(proto.SerializeToString())


def _forget_origin(graph: Any) -> None:  # noqa: ANN401 - an onnx GraphProto
    """Drop what the exporter notes of where operators came from: two thirds of a file, and paths of this machine."""
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.ClearField("doc_string")


def count_onnx(folder: Path, *, max_batch: int) -> tuple[dict[str, tuple[OperatorCost, ...]], dict[str, int]]:
    """By method, what the operators in the files cost, and the peak bytes of values alive at once."""
    costs, peaks = {}, {}
    for method in METHODS:
        path = folder / onnx_file(method)
        one = count_onnx_file(path, batch=1)
        most = count_onnx_file(path, batch=max_batch)
        costs[method] = pair_costs(one.names, one.costs, most.costs)
        peaks[method] = most.peak_bytes
    return costs, peaks


class OnnxSession(FlatSession):
    """Runs the three ONNX files in this process on the CPU.

    Args:
        folder: holds the files.
        signature: of the programs.
        max_batch: the largest batch that is let through.
        threads: of each operator; 1 gives equal results on equal machines.
    """

    def __init__(self, folder: Path, signature: Signature, *, max_batch: int, threads: int = 1) -> None:
        import onnxruntime

        super().__init__(signature, max_batch=max_batch)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Errors only: its warnings go to the terminal, past Python.
        options.log_severity_level = 3
        self._sessions = {
            method: onnxruntime.InferenceSession(
                (folder / onnx_file(method)).read_bytes(), options, providers=["CPUExecutionProvider"]
            )
            for method in METHODS
        }
        self._inputs = {method: [spec.label for spec in signature.method(method).inputs] for method in METHODS}

    def _run(self, method: str, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        feed = {name: value.numpy() for name, value in zip(self._inputs[method], inputs, strict=True)}
        return [torch.from_numpy(array) for array in self._sessions[method].run(None, feed)]
