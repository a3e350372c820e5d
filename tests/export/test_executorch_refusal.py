"""What ExecuTorch's registry, errors and log say about operators."""

import pytest
import torch
from torch import nn
from torch.fx import Graph, GraphModule

from pocketfleet.export.executorch_refusal import check_kernels, lowering_refusal, registered_kernels, run_refusal
from pocketfleet.export.quiet import quiet_export
from pocketfleet.export.unsupported import Unsupported, UnsupportedError

aten = torch.ops.aten
# As executorch 1.5.1 writes it.
LOG = """[kernel_ops_util.cpp:394] Check failed (in.dim() == 3 || in.dim() == 4): Expect input tensor to be 4-D.
[op_convolution.cpp:363] Check failed (check_convolution_args( in, weight)): 
[method.cpp:1483] KernelCall failed at instruction 0:3 in operator aten::add.out: 0x12
[method.cpp:1493] arg 0 with type id 1
"""  # noqa: W291 - the log's own
# The same, of a result for which less memory is planned than it needs.
RESIZED = """[tensor_impl.cpp:135] Attempted to resize a static tensor. Expected shape (4, 2), but received (4, 3).
[op_add.cpp:47] Check failed (resize_to_broadcast_target_size(a, b, out) == Error::Ok): 
[method.cpp:1483] KernelCall failed at instruction 0:0 in operator aten::add.out: 0x12
[method.cpp:1493] arg 0 with type id 1
"""  # noqa: W291 - the log's own
STATIC = " (Attempted to resize a static tensor. Expected shape (4, 2), but received (4, 3))"


def lowered() -> GraphModule:
    """Two additions around a product, each labelled."""
    graph = Graph()
    x = graph.placeholder("x")
    for layer, operator in (("a", aten.add.out), ("b", aten.mul.out), ("c", aten.add.out)):
        x = graph.call_function(operator, (x, x), {"out": x})
        x.meta["custom"] = {"layer": layer, "gradient": layer == "c"}
    graph.output(x)
    return GraphModule(nn.Module(), graph)


def test_operators_without_a_kernel_are_found_with_their_places() -> None:
    with pytest.raises(UnsupportedError, match=r"b uses aten\.mul, for which ExecuTorch .* has no kernel") as raised:
        check_kernels([lowered()], {"aten::add.out"})
    assert raised.value.found == (Unsupported(operator="aten.mul", layer="b"),)
    check_kernels([lowered()], {"aten::add.out", "aten::mul.out"})


def test_the_installed_runtime_has_kernels() -> None:
    assert {"aten::add.out", "aten::mm.out"} <= registered_kernels()
    assert "aten::max_pool3d_with_indices.out" not in registered_kernels()


def test_the_instruction_that_failed_is_the_second_call_of_its_operator() -> None:
    calls = ["aten::add.out", None, "aten::mul.out", "aten::add.out"]
    refusal = run_refusal(LOG, lowered(), calls, batch=4)
    assert refusal is not None
    assert refusal.found == (Unsupported(operator="aten.add", layer="c", gradient=True),)
    assert refusal.problem.endswith("refuses its arguments at a batch of 4 (Expect input tensor to be 4-D)")
    assert run_refusal("[method.cpp:1] another complaint", lowered(), calls, batch=4) is None


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (RESIZED, STATIC),
        (RESIZED.partition("\n")[2], " (Check failed (resize_to_broadcast_target_size(a, b, out) == Error::Ok):)"),
        (RESIZED.replace("[tensor", "E 00:00:00.013 executorch:[tensor"), STATIC),
        # What comes after the failure is no reason for it.
        (RESIZED[RESIZED.index("[method") :], ""),
    ],
)
def test_the_reason_is_the_last_that_was_said_before_the_failure(log: str, reason: str) -> None:
    refusal = run_refusal(log, lowered(), ["aten::add.out"], batch=4)
    assert refusal is not None
    assert refusal.problem.partition("at a batch of 4")[2] == reason


def test_an_instruction_that_is_not_found_leaves_the_operator() -> None:
    refusal = run_refusal(LOG.replace("aten::add.out", "aten::sub.out"), lowered(), [], batch=4)
    assert refusal is not None
    assert refusal.found == (Unsupported(operator="aten.sub", layer=None),)


class Solving(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.solve(torch.eye(3) + x, x).relu()


def test_errors_of_lowering() -> None:
    with quiet_export():
        graphs = {"forward": torch.export.export(Solving(), (torch.ones(3, 3),)).run_decompositions()}
    named = lowering_refusal(RuntimeError("Missing out variants: {'aten::relu'}"), graphs)
    assert named is not None
    assert {entry.operator for entry in named.found} == {"aten.relu"}
    unnamed = lowering_refusal(AttributeError("no attribute '_schema'"), graphs)
    assert unnamed is not None
    assert any("linalg_solve" in entry.operator for entry in unnamed.found)
    assert all("relu" not in entry.operator for entry in unnamed.found)
    assert lowering_refusal(ValueError("no memory"), {}) is None
