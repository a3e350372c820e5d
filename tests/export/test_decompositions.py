"""Each replacement against the operator that it replaces, and with a batch size that tracing did not see."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from toy import drawn

from pocketfleet.export import decompositions
from pocketfleet.export.decompositions import EXECUTORCH, ONNX, decomposition_table
from pocketfleet.export.session import Runtime

aten = torch.ops.aten
few = settings(max_examples=25, deadline=None, derandomize=True)
sizes = st.tuples(st.integers(5, 9), st.integers(5, 9))
small = st.tuples(st.integers(1, 3), st.integers(1, 3))


@given(size=sizes, kernel=small, stride=small, dilation=st.integers(1, 2), ceil_mode=st.booleans(), data=st.data())
@few
def test_max_pool_gradient(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: int,
    ceil_mode: bool,
    data: st.DataObject,
) -> None:
    padding = data.draw(st.integers(0, min(kernel) // 2))
    # Rounded, so that windows hold equal maxima, whose gradient goes to one place only.
    x = drawn(2, 3, *size).round().double()
    options = (kernel, stride, [padding, padding], [dilation, dilation], ceil_mode)
    output, indices = aten.max_pool2d_with_indices(x, *options)
    grad = drawn(*output.shape, seed=1).double()
    found = decompositions.max_pool2d_backward(grad, x, *options, indices)
    torch.testing.assert_close(found, aten.max_pool2d_with_indices_backward(grad, x, *options, indices))


@given(size=sizes, kernel=small, stride=small, divisor=st.sampled_from([None, 3]), data=st.data())
@few
def test_average_pool_gradient(
    size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], divisor: int | None, data: st.DataObject
) -> None:
    padding = data.draw(st.integers(0, min(kernel) // 2))
    x = drawn(2, 3, *size).double()
    options = (kernel, stride, [padding, padding], False, True, divisor)
    grad = drawn(*aten.avg_pool2d(x, *options).shape, seed=1).double()
    found = decompositions.avg_pool2d_backward(grad, x, *options)
    torch.testing.assert_close(found, aten.avg_pool2d_backward(grad, x, *options))


@pytest.mark.parametrize(
    ("padding", "ceil_mode", "count_include_pad"), [(0, True, True), (1, False, False)], ids=["ceil", "uncounted pad"]
)
def test_average_pools_that_are_left_to_the_runtime(padding: int, ceil_mode: bool, count_include_pad: bool) -> None:
    x = drawn(1, 1, 5, 5)
    found = decompositions.avg_pool2d_backward(
        x, x, [3, 3], [2, 2], [padding, padding], ceil_mode, count_include_pad, None
    )
    assert found is NotImplemented


def test_rectifier_gradient() -> None:
    x, grad = torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([5.0, 6.0, 7.0])
    assert decompositions.threshold_backward(grad, x, 0.0).tolist() == [0.0, 0.0, 7.0]


@given(
    dims=st.integers(1, 2),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.integers(1, 2),
)
@few
def test_convolution_gradient(dims: int, kernel: int, stride: int, padding: int, dilation: int, groups: int) -> None:
    x, weight = drawn(2, 2 * groups, *[7] * dims).double(), drawn(3 * groups, 2, *[kernel] * dims, seed=1).double()
    options = ([stride] * dims, [padding] * dims, [dilation] * dims, False, [0] * dims, groups)
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
    assert not operators & replaced
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
