"""Programs to ONNX files of standard operators, and the session that runs them on the stock ONNX Runtime.

1. Of onnxscript's optimizer only the folding of constants is used: its rules drop an added constant of 1e-8 as if it
   were 0. The rest of the optimising is done by the runtime when it loads.
2. The runtime reads its inputs where torch holds them and writes its results into memory of torch: no weight is copied
   on its way from one step to the next.

Tried with torch 2.13.0, onnx 1.22, onnxscript 0.7.2, onnxruntime 1.32.0. Names with a leading underscore that are used:
``onnxruntime.IOBinding._iobinding`` and ``onnxruntime.OrtDevice._get_c_device``, without which binding takes as long as
a small step.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pocketfleet.errors import BundleError
from pocketfleet.export.declared import Declared, check_declared
from pocketfleet.export.footprint import OperatorCost, pair_costs
from pocketfleet.export.manifest import onnx_file
from pocketfleet.export.onnx_counting import count_onnx_file
from pocketfleet.export.onnx_refusal import run_refusal, translation_refusal
from pocketfleet.export.operator_tables import kept_operators, kept_translations
from pocketfleet.export.program import Programs
from pocketfleet.export.quiet import quiet_export
from pocketfleet.export.session import FlatSession
from pocketfleet.export.signature import BATCH, METHODS, MethodSignature, Signature
from pocketfleet.export.unsupported import Unsupported, UnsupportedError

if TYPE_CHECKING:
    import onnxruntime

__all__ = [
    "MINIMUM_VERSION",
    "OPSET",
    "OnnxMethod",
    "OnnxSession",
    "count_onnx",
    "session_options",
    "try_forward",
    "write_onnx",
]

# The first opset with everything that the programs use (ScatterElements with a sum came with 16, ReduceSum's axes
# as an input with 13, Split's num_outputs with 18), and what torch's exporter writes natively.
OPSET = 18
# The oldest onnxruntime that reads opset 18 in ONNX's file version 10 (its table of versions); tried with 1.32.0.
MINIMUM_VERSION = "1.18"
# What the runtime's Python side calls torch's types.
_NUMPY_TYPES = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.float16: np.float16,
    torch.int64: np.int64,
    torch.int32: np.int32,
    torch.int16: np.int16,
    torch.int8: np.int8,
    torch.uint8: np.uint8,
    torch.bool: np.bool_,
}


# What a file calls them.
_TYPE_NAMES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    **{f"tensor({name})": name for name in ("bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")},
}


# Where the exporter keeps the module that an operator comes from: a list that starts with it, as Python prints it.
_SCOPES = "pkg.torch.onnx.name_scopes"


def write_onnx(programs: Programs, folder: Path) -> None:
    """Write ``train_step.onnx``, ``predict.onnx`` and ``evaluate.onnx`` into ``folder``; inputs are named by label.

    Raises:
        UnsupportedError: an operator has no standard ONNX form, or the runtime does not run it.
    """
    for method in METHODS:
        _try_method(programs, method, folder / onnx_file(method))


def try_forward(programs: Programs, folder: Path) -> None:
    """Write and run ``evaluate`` alone, for a model whose training step cannot be written.

    Raises:
        Exception: whatever stands in the way.
    """
    _try_method(programs, "evaluate", folder / onnx_file("evaluate"))


def _try_method(programs: Programs, method: str, path: Path) -> None:
    """Write one method, and run it once on the batch that was traced.

    Raises:
        UnsupportedError: as ``write_onnx``.
    """
    with quiet_export(), kept_operators(), kept_translations():
        from torch.onnx import OnnxExporterError

        try:
            _write_method(programs, method, path)
        except OnnxExporterError as exc:
            refusal = translation_refusal(exc)
            if refusal is None:
                raise
            raise refusal from exc
    _rehearse(programs, method, path)


def _rehearse(programs: Programs, method: str, path: Path) -> None:
    """Run a method once at each batch size."""
    try:
        opened = OnnxMethod(path, programs.signature.method(method), session_options(threads=1))
        for batch in programs.rehearsed_batches:
            opened(programs.example_inputs(method, batch=batch))
    except Exception as exc:
        refusal = run_refusal(exc)
        if refusal is None:
            raise
        raise refusal from exc


def _input_names(signature: MethodSignature) -> list[str]:
    return [spec.label for spec in signature.inputs]


def _output_names(signature: MethodSignature) -> list[str]:
    return [f"{spec.label}/out" for spec in signature.outputs]


def _write_method(programs: Programs, method: str, path: Path) -> None:
    signature = programs.signature.method(method)
    exported = torch.onnx.export(
        programs.graphs[method],
        input_names=_input_names(signature),
        output_names=_output_names(signature),
        opset_version=OPSET,
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    assert exported is not None
    _fold_constants(exported.model)
    proto = exported.model_proto
    _name_by_layer(proto.graph)
    foreign = [
        Unsupported(operator=f"{node.domain}.{node.op_type}", layer=node.name.rpartition(":")[0])
        for node in proto.graph.node
        if node.domain
    ]
    if foreign:
        raise UnsupportedError(foreign, problem="which is no standard ONNX operator")
    _forget_origin(proto.graph)
    path.write_bytes(proto.SerializeToString())


def _fold_constants(model: Any) -> None:  # noqa: ANN401 - an onnx_ir Model
    """Compute what follows from constants alone, and split tensors into tensors where torch splits into a sequence."""
    from onnx_ir.passes.common import CommonSubexpressionEliminationPass
    from onnxscript import optimizer

    optimizer.fold_constants(model)
    CommonSubexpressionEliminationPass()(model)
    optimizer.remove_unused_nodes(model)


def _name_by_layer(graph: Any) -> None:  # noqa: ANN401 - an onnx GraphProto
    """Name operators ``layer:number``: the one trace of where they came from that is worth its bytes."""
    for number, node in enumerate(graph.node):
        scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
        path = next(iter(ast.literal_eval(scopes)), "")
        # The exporter's name for an operator without a module.
        node.name = f"{'' if path.startswith('_empty') else path}:{number}"


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
        costs[method] = pair_costs(one.names, one.layers, one.costs, most.costs)
        peaks[method] = most.peak_bytes
    return costs, peaks


def session_options(*, threads: int) -> "onnxruntime.SessionOptions":
    """Options under which programs run: ``threads`` for each operator, one operator at a time, errors only."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads sleep in place of turning over: a phone pays for both, and here other work shares the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Errors only: its warnings go to the terminal, past Python.
    options.log_severity_level = 3
    return options


def _check_self_contained(path: Path, content: bytes) -> None:
    """Refuse a file whose values lie in other files: the runtime would read those, wherever they are."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as exc:
        raise BundleError(f"{path} is no ONNX file; export the bundle again") from exc
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _stored(model.graph)):
        raise BundleError(f"{path} keeps values in other files, which no bundle does; export the bundle again")


def _stored(graph: Any) -> Iterator[Any]:  # noqa: ANN401 - an onnx GraphProto and its TensorProtos
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                yield from _stored(inner)


def _check_declared(path: Path, runtime: "onnxruntime.InferenceSession", signature: MethodSignature) -> None:
    for what, declared, labels, specs in (
        ("inputs", runtime.get_inputs(), _input_names(signature), signature.inputs),
        ("outputs", runtime.get_outputs(), _output_names(signature), signature.outputs),
    ):
        found = [
            Declared(
                one.name,
                tuple(size if isinstance(size, int) else None for size in one.shape),
                _TYPE_NAMES.get(one.type, one.type),
            )
            for one in declared
        ]
        check_declared(path, what, found, list(zip(labels, specs, strict=True)), batch=None)


class OnnxMethod:
    """One method's file in the runtime, bound to memory of torch; called by one thread at a time.

    Results whose shape is known are new tensors that the runtime writes into. Those that depend on the batch are
    allocated by the runtime, since a signature says ``batch`` also where the size is a multiple of it.

    Args:
        path: of the file.
        signature: of the method.
        options: of the runtime.
    """

    def __init__(self, path: Path, signature: MethodSignature, options: "onnxruntime.SessionOptions") -> None:
        import onnxruntime

        content = path.read_bytes()
        _check_self_contained(path, content)
        self.runtime = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        _check_declared(path, self.runtime, signature)
        self._binding = self.runtime.io_binding()
        self._memory = self._binding._iobinding
        self._cpu = onnxruntime.OrtDevice.make("cpu", 0)._get_c_device()
        self._inputs = _input_names(signature)
        # By place, what is bound. Memory that was freed and is used again for an equal tensor needs no new binding.
        self._bound: list[tuple[int, torch.dtype, torch.Size] | None] = [None] * len(self._inputs)
        shapes = [None if BATCH in spec.shape else spec.sizes(1) for spec in signature.outputs]
        types = [getattr(torch, spec.dtype) for spec in signature.outputs]
        self._outputs = list(zip(_output_names(signature), shapes, types, strict=True))
        self._leaves_none = None not in shapes

    def __call__(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Run it on contiguous tensors in the order of the signature; the runtime checks their shapes and types."""
        for place, value in enumerate(inputs):
            key = (value.data_ptr(), value.dtype, value.shape)
            if key != self._bound[place]:
                self._bind_input(place, value)
                self._bound[place] = key
        results = [self._bind_output(name, shape, dtype) for name, shape, dtype in self._outputs]
        self.runtime.run_with_iobinding(self._binding)
        if self._leaves_none:
            return results
        found = self._binding.get_outputs()
        return [
            result if shape is not None else torch.from_numpy(value.numpy())
            for result, value, (_, shape, _) in zip(results, found, self._outputs, strict=True)
        ]

    def _bind_input(self, place: int, value: torch.Tensor) -> None:
        element = _NUMPY_TYPES[value.dtype]
        self._memory.bind_input(self._inputs[place], self._cpu, element, value.shape, value.data_ptr())

    def _bind_output(self, name: str, shape: tuple[int, ...] | None, dtype: torch.dtype) -> torch.Tensor:
        """Memory for one result; an empty tensor stands in for what the runtime allocates, anew on every call."""
        result = torch.empty(shape or (), dtype=dtype)
        if shape is None:
            self._memory.bind_output(name, self._cpu)
        else:
            self._memory.bind_output(name, self._cpu, _NUMPY_TYPES[dtype], shape, result.data_ptr())
        return result


def _opened(path: Path, signature: MethodSignature, options: "onnxruntime.SessionOptions") -> OnnxMethod:
    try:
        return OnnxMethod(path, signature, options)
    except BundleError:
        raise
    except Exception as exc:
        raise BundleError(
            f"{path} cannot be loaded by this version of ONNX Runtime: {(str(exc).splitlines() or [''])[0][:300]}; "
            "export the bundle again"
        ) from exc


class OnnxSession(FlatSession):
    """Runs the three ONNX files in this process on the CPU.

    Args:
        folder: holds the files.
        signature: of the programs.
        max_batch: the largest batch that is let through.
        threads: of each operator; 1 gives equal results on equal machines.
    """

    def __init__(self, folder: Path, signature: Signature, *, max_batch: int, threads: int = 1) -> None:
        super().__init__(signature, max_batch=max_batch)
        options = session_options(threads=threads)
        self._methods = {
            method: _opened(folder / onnx_file(method), signature.method(method), options) for method in METHODS
        }

    def _run(self, method: str, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        return self._methods[method](inputs)
