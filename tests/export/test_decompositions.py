"""Each replacement against the operator that it replaces, and with a batch size that tracing did not see."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from toy import drawn

from pocketfleet.export import decompositions
from pocketfleet.export.decompositions import EXECUTORCH, ONNX, decomposition_table
from pocketfleet.export.session import Runtime

aten = torch.ops.aten
few = settings(max_examples=25, deadline=None, derandomize=True)


# Zero, the ends of ReLU6 and their neighbours, the smallest numbers, and what lies far out.
_EDGES = [0.0, -0.0, 1.0, -1.0, 6.0, 5.9999995, 6.0000005, 1e-45, -1e-45, 1.2e-38, 3e38, -3e38, float("inf")]
edges = st.lists(st.one_of(st.sampled_from(_EDGES), st.floats(-9, 9, width=32)), min_size=1, max_size=20)


@given(values=edges)
@few
def test_rectifier_gradient(values: list[float]) -> None:
    x = torch.tensor(values)
    grad = drawn(len(values))
    expected = aten.threshold_backward(grad, x, 0.0)
    assert torch.equal(decompositions.threshold_backward(grad, x, 0.0), expected)
    assert decompositions.threshold_backward(grad, x, 0.5) is NotImplemented


@given(values=edges, ends=st.sampled_from([(0.0, 6.0), (-1.0, 1.0), (-2.5, 0.5)]))
@few
def test_bounded_rectifier_gradient(values: list[float], ends: tuple[float, float]) -> None:
    x = torch.tensor(values)
    grad = drawn(len(values))
    assert torch.equal(decompositions.hardtanh_backward(grad, x, *ends), aten.hardtanh_backward(grad, x, *ends))


@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3)), factors=st.tuples(*[st.integers(0, 2)] * 2)
)
@few
def test_product_and_sum(size: tuple[int, int, int], factors: tuple[int, int]) -> None:
    rows, inner, columns = size
    a, b = drawn(rows, inner).double(), drawn(inner, columns, seed=1).double()
    strengths = {"beta": factors[0], "alpha": factors[1]}
    for bias in (drawn(columns, seed=2).double(), drawn(rows, 1, seed=3).double()):
        torch.testing.assert_close(decompositions.addmm(bias, a, b, **strengths), aten.addmm(bias, a, b, **strengths))


@given(
    batch=st.integers(1, 3),
    dims=st.integers(1, 3),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.integers(1, 2),
    transposed=st.booleans(),
    extra=st.integers(0, 2),
)
@example(batch=2, dims=1, kernel=2, stride=1, padding=0, dilation=2, groups=1, transposed=True, extra=1)
@few
def test_convolution_gradient(
    batch: int,
    dims: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
    transposed: bool,
    extra: int,
) -> None:
    # Transposed, an output padding may be as large as the stride where the dilation is larger.
    extra = extra % max(stride, dilation) if transposed else 0
    channels = (2 * groups, 3) if transposed else (3 * groups, 2)
    x, weight = drawn(batch, 2 * groups, *[5] * dims).double(), drawn(*channels, *[kernel] * dims, seed=1).double()
    options = ([stride] * dims, [padding] * dims, [dilation] * dims, transposed, [extra] * dims, groups)
    grad = drawn(*aten.convolution(x, weight, None, *options).shape, seed=2).double()
    arguments = (grad, x, weight, [3 * groups], *options, [True] * 3)
    found = decompositions.convolution_backward(*arguments)
    for one, true in zip(found, aten.convolution_backward(*arguments), strict=True):
        torch.testing.assert_close(one, true)


def loss_of(module: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The gradient of a sum of squares with respect to the input."""

    def gradient(x: torch.Tensor) -> torch.Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(module(x).square().sum(), x)[0]

    return gradient


@given(
    batch=st.integers(1, 4),
    reduction=st.sampled_from([0, 1, 2]),
    weighted=st.booleans(),
    ignored=st.sampled_from([-100, 1]),
)
@few
def test_negative_log_likelihood(batch: int, reduction: int, weighted: bool, ignored: int) -> None:
    scores, target = drawn(batch, 5).double().log_softmax(1), torch.arange(batch)
    weight = torch.arange(1.0, 6.0).double() if weighted else None
    operator = aten.nll_loss_forward.default
    found = decomposition_table("onnx")[operator](scores, target, weight, reduction, ignored)
    loss, total = operator(scores, target, weight, reduction, ignored)
    torch.testing.assert_close(found[0], loss)
    # Only the gradient of a mean reads the total weight.
    if reduction == 1:
        torch.testing.assert_close(found[1], total)


MODULES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "convolution": lambda x: F.conv2d(x, torch.ones(3, 2, 3, 3), stride=2, padding=1),
    "max-pool": lambda x: F.max_pool2d(x, 3, stride=2, padding=1),
    "average pool": lambda x: F.avg_pool2d(x, 2),
    "average pool past the edge": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
    "rectifier": F.relu,
    "mean cross-entropy": lambda x: F.cross_entropy(x.flatten(1), x.flatten(1).argmin(1), label_smoothing=0.1),
    "mean cross-entropy of an image": lambda x: F.cross_entropy(x, x.argmin(1)),
    "batch norm": lambda x: F.batch_norm(x, None, None, training=True),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("runtime", ["executorch", "onnx"])
def test_gradients_traced_for_any_batch(name: str, runtime: Runtime) -> None:
    from torch._dispatch.python import enable_python_dispatcher
    from torch.fx.experimental.proxy_tensor import make_fx

    call = loss_of(MODULES[name])
    with enable_python_dispatcher():
        traced = make_fx(call, decomposition_table=decomposition_table(runtime), tracing_mode="symbolic")(
            drawn(4, 2, 6, 6)
        )
    operators = {str(node.target).rpartition(".")[0] for node in traced.graph.nodes}
    replaced = {entry.name for entry in (EXECUTORCH if runtime == "executorch" else ONNX)}
    # A transposed convolution is what ONNX has for the gradient; only ExecuTorch's is replaced by products.
    # An average pool without a divisor of its own is left alone, and padding that does not cut.
    assert not operators & (replaced - {"aten.avg_pool2d", "aten.constant_pad_nd"})
    for batch in (2, 5, 9):
        x = drawn(batch, 2, 6, 6, seed=batch)
        torch.testing.assert_close(traced(x), call(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("entry", [*EXECUTORCH, *ONNX], ids=lambda entry: entry.name)
def test_every_entry_says_for_which_version_and_why(entry: decompositions.Decomposition) -> None:
    assert entry.versions.split()[1][0].isdigit()
    assert len(entry.reason) > 10


def test_an_operator_can_be_left_out() -> None:
    whole = decomposition_table("executorch")
    without = decomposition_table("executorch", leave_out=["aten.convolution"])
    assert whole.keys() - without.keys() == {aten.convolution.default}


def test_leaving_out_an_unknown_operator() -> None:
    with pytest.raises(ValueError, match=r"no decomposition for onnx of \['aten.convolution'\]"):
        decomposition_table("onnx", leave_out=["aten.convolution"])


@given(batch=st.integers(1, 3), pads=st.lists(st.integers(-2, 2), min_size=4, max_size=4))
@few
def test_padding_that_cuts(batch: int, pads: list[int]) -> None:
    x = drawn(batch, 2, 5, 6)
    found = decompositions.constant_pad(x, pads, 0.5)
    if all(size >= 0 for size in pads):
        assert found is NotImplemented
    else:
        torch.testing.assert_close(found, torch.ops.aten.constant_pad_nd(x, pads, 0.5))
