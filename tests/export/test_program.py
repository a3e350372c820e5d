"""Tracing: order of inputs and outputs, the dynamic batch, and what cannot be traced."""

import pytest
import torch
import toy
from torch import nn
from torch.fx import Node

from pocketfleet.errors import InputError
from pocketfleet.export.program import Programs, trace_programs
from pocketfleet.training.task import initial_model
from pocketfleet.training.train_step import StepSettings, TrainState, TrainStep, hyper_tensors
from pocketfleet.training.weights import model_weights

EVERY_TERM = StepSettings(
    momentum=True, nesterov=True, weight_decay=True, proximal=True, clipping=True, correction=True
)


def trace(task: toy.Toy, *, settings: StepSettings = StepSettings(), max_batch: int = 4) -> Programs:  # noqa: B008
    model = initial_model(task, seed=0)
    examples = task.train_examples()
    weights = model_weights(model, examples.x[:2])
    return trace_programs(task, model, weights, settings=settings, examples=examples, max_batch=max_batch, table={})


def test_order_of_inputs_and_outputs() -> None:
    signature = trace(toy.dense_toy(), settings=EVERY_TERM).signature
    tensors = ("0.bias", "0.weight")
    assert [spec.label for spec in signature.train_step.inputs] == [
        *(f"{role}/{name}" for role in ("trainable", "slot/momentum", "anchor", "correction") for name in tensors),
        *("x", "y", "hyper/learning_rate", "hyper/momentum", "hyper/weight_decay", "hyper/proximal_mu"),
        "hyper/max_norm",
    ]
    assert [spec.label for spec in signature.train_step.outputs] == [
        "loss",
        *(f"{role}/{name}" for role in ("trainable", "slot/momentum") for name in tensors),
    ]
    assert [spec.label for spec in signature.predict.inputs] == ["trainable/0.bias", "trainable/0.weight", "x"]
    assert [spec.label for spec in signature.evaluate.outputs] == ["loss", "metric/accuracy"]


def test_shapes_hold_the_batch_by_name() -> None:
    signature = trace(toy.normalised_toy()).signature
    shapes = {spec.label: (spec.shape, spec.dtype) for spec in signature.train_step.inputs}
    assert shapes["x"] == (("batch", 2, 8, 8), "float32")
    assert shapes["y"] == (("batch",), "int64")
    assert shapes["buffer/1.num_batches_tracked"] == ((), "int64")
    assert signature.predict.outputs[0].shape == ("batch", 4)
    assert signature.predict.outputs[0].sizes(3) == (3, 4)


def run(programs: Programs, method: str, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return list(programs.graphs[method].module()(*inputs))


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_the_traced_step_is_the_eager_step(batch: int) -> None:
    task = toy.dense_toy()
    programs = trace(task, settings=EVERY_TERM)
    model = initial_model(task, seed=0)
    weights = model_weights(model, task.train_examples().x[:2])
    start = TrainState.start(weights, EVERY_TERM, correction={n: v * 0.1 for n, v in weights.trainable.items()})
    # The anchor is not the weights any more: each must be read from its own input.
    start = TrainState(
        trainable={name: value + 0.5 for name, value in start.trainable.items()},
        frozen={},
        buffers={},
        optimizer_slots={name: value + 0.25 for name, value in start.optimizer_slots.items()},
        anchor=start.anchor,
        correction=start.correction,
    )
    strengths = dict(zip(EVERY_TERM.hyper_names, (0.1, 0.9, 0.01, 0.3, 0.5), strict=True))
    hyper = hyper_tensors(EVERY_TERM, strengths)
    x, y = task.train_examples().x[:batch], task.train_examples().y[:batch]
    groups = (start.trainable, start.optimizer_slots, start.anchor, start.correction)
    flat = [group[name] for group in groups for name in sorted(group)]
    loss, *found = run(programs, "train_step", [*flat, x, y, *hyper.values()])
    true_loss, end = TrainStep(model, task.loss, EVERY_TERM)(start, x, y, hyper)
    expected = [group[name] for group in (end.trainable, end.optimizer_slots) for name in sorted(group)]
    torch.testing.assert_close([loss, *found], [true_loss, *expected])


def test_a_bundle_for_single_examples_has_no_dynamic_batch() -> None:
    programs = trace(toy.dense_toy(), max_batch=1)
    assert programs.signature.predict.inputs[-1].shape == ("batch", 3)
    assert run(programs, "predict", [torch.zeros(4), torch.zeros(4, 3), torch.zeros(1, 3)])[0].shape == (1, 4)


def test_copies_that_compute_nothing_are_taken_out() -> None:
    graph = trace(toy.dense_toy()).graphs["train_step"].graph
    transposes = [node for node in graph.nodes if node.target is torch.ops.aten.t.default]
    assert not [node for node in graph.nodes if node.target is torch.ops.aten.detach.default]
    assert transposes
    for node in transposes:
        assert isinstance(node.args[0], Node)
        assert node.args[0].target is not torch.ops.aten.t.default


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)


class BySize(Layer):
    """Takes a branch that holds for full batches only; tracing alone would not notice."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * (1.0 if x.shape[0] > 3 else 2.0)


class ByLength(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.view(len(x), 3))


class ByValue(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x if x.sum() > 0 else -x)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (BySize, "branches on the batch size.*taken for a batch of 4 is not taken for one of 1"),
        (ByLength, "branches on the batch size.*taken for a batch of 4 is not taken for one of 1"),
        (ByValue, "branches on values.*data-dependent"),
    ],
)
def test_what_cannot_be_exported_says_so(model: type[nn.Module], reason: str) -> None:
    with pytest.raises(
        InputError,
        match=rf"train_step of task 'toy' cannot be exported for batches of 1 to 4: .*\({model.__name__}\), .*{reason}",
    ):
        trace(toy.Toy(model, 3))
