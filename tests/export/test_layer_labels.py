"""Every operator of a traced program has the module it comes from, in the forward pass and in the backward pass."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toy import drawn

from pocketfleet.export.decompositions import decomposition_table
from pocketfleet.export.layers import LOSS, OPTIMIZER, layer_of
from pocketfleet.export.program import trace_programs
from pocketfleet.training.model_task import ModelTask
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.weights import model_weights

Labels = dict[str, Counter[str]]


def labels(model: nn.Module, *shape: int, method: str = "train_step", table: str | None = None) -> Labels:
    """By layer, how often each operator is there."""
    task = ModelTask(model, nn.CrossEntropyLoss(reduction="none"), (drawn(4, *shape), torch.arange(4)))
    examples = task.train_examples()
    programs = trace_programs(
        task,
        model,
        model_weights(model, examples.x),
        settings=StepSettings(),
        examples=examples,
        max_batch=4,
        table=decomposition_table(table) if table else {},  # type: ignore[arg-type]
    )
    found: Labels = {}
    for node in programs.graphs[method].graph.nodes:
        # Sizes are asked for by torch.export itself.
        if isinstance(node.target, torch._ops.OpOverload) and "sym_size" not in str(node.target):
            name = node.target.name().removeprefix("aten::").partition(".")[0]
            found.setdefault(layer_of(node), Counter())[name] += 1
    return found


class Nested(nn.Module):
    """A body and a head, and functional operators between them and after them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 5), nn.Tanh())
        self.head = nn.Linear(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.softplus(self.head(F.silu(self.body(x))))


def test_modules_have_what_they_run_forward_and_backward() -> None:
    found = labels(Nested(), 3)
    assert set(found) == {"", "body.0", "body.1", "head", LOSS, OPTIMIZER}
    assert found["body.1"] == {"tanh": 1, "tanh_backward": 1}
    # Forward, and the gradients of weight and input; the first layer's input needs none.
    for layer, products in (("head", 2), ("body.0", 1)):
        assert (found[layer]["addmm"], found[layer]["mm"], found[layer]["sum"]) == (1, products, 1)


def test_functional_operators_are_the_parents_also_backward_and_between_modules() -> None:
    own = labels(Nested(), 3)[""]
    assert own == {"silu": 1, "silu_backward": 1, "softplus": 1, "softplus_backward": 1}


def test_loss_and_optimizer() -> None:
    found = labels(Nested(), 3)
    assert {"_log_softmax", "_log_softmax_backward_data", "nll_loss_forward", "nll_loss_backward", "mean"} <= set(
        found[LOSS]
    )
    # Plain SGD multiplies and subtracts once for each of the four tensors.
    assert found[OPTIMIZER] == {"mul": 4, "sub": 4}


def test_prediction_and_evaluation_have_labels_too() -> None:
    assert set(labels(Nested(), 3, method="predict")) == {"", "body.0", "body.1", "head"}
    assert set(labels(Nested(), 3, method="evaluate")) == {"", "body.0", "body.1", "head", LOSS}


class Twice(nn.Module):
    """One layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act = nn.Linear(4, 4), nn.Tanh()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layer(self.act(self.layer(x)))
        return output


def test_a_module_called_twice_has_both_calls() -> None:
    found = labels(Twice(), 4)
    assert set(found) == {"layer", "act", LOSS, OPTIMIZER}
    # Two gradients of the weight and one of the second call's input; the two gradients are added here.
    assert (found["layer"]["addmm"], found["layer"]["mm"], found["layer"]["add"]) == (2, 3, 2)
    assert found["act"] == {"tanh": 1, "tanh_backward": 1}


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.linear(x.sin()).tanh()
        return output


def test_modules_within_modules() -> None:
    found = labels(nn.Sequential(nn.Linear(4, 4), nn.Sequential(Inner(), Inner())), 4)
    assert set(found) == {"0", "1.0", "1.0.linear", "1.1", "1.1.linear", LOSS, OPTIMIZER}
    for path in ("1.0", "1.1"):
        # The gradient of a sine multiplies by the cosine.
        assert found[path] == {"sin": 1, "tanh": 1, "tanh_backward": 1, "cos": 1, "mul": 1}


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return x.exp() + self.second(x)


def test_beside_a_module() -> None:
    found = labels(Residual(), 4)
    # exp, its gradient's product, the sum, and the sum of two gradients where the paths meet.
    assert found[""]["exp"] == 1
    assert found[""]["mul"] == 1
    assert sum(found[path]["mm"] for path in ("first", "second")) == 3
    assert sum(counts["add"] for counts in found.values()) == 2


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head(self.rnn(x)[0][:, -1])
        return output


def test_a_recurrent_module_has_all_its_steps() -> None:
    found = labels(Recurrent(), 2, 3)
    assert set(found) == {"", "rnn", "head", LOSS, OPTIMIZER}
    # Two gates and one candidate, at two places.
    assert (found["rnn"]["sigmoid"], found["rnn"]["tanh"]) == (4, 2)
    assert (found["rnn"]["sigmoid_backward"], found["rnn"]["tanh_backward"]) == (4, 2)
    assert {"select", "select_backward"} <= set(found[""])


@pytest.mark.parametrize("table", ["executorch", "onnx"])
def test_what_is_decomposed_stays_with_its_module(table: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 4))
    found = labels(model, 1, 6, 6, table=table)
    assert set(found) == {"0", "1", "2", "3", "4", LOSS, OPTIMIZER}
    assert "rsqrt" in found["1"]
    assert "scatter_add" in found["2"]
    assert set(found["3"]) == {"view"}
    assert not {"max_pool2d_with_indices_backward", "native_batch_norm_backward"} & set().union(*found.values())


def test_hooks_are_taken_away() -> None:
    model = Nested()
    labels(model, 3)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
