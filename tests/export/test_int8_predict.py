"""The quantised copy is near the weights of the export, for every batch size, beside the other methods."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import toy
from torch import nn

from pocketfleet.errors import InputError
from pocketfleet.export.decompositions import decomposition_table
from pocketfleet.export.executorch import INT8_METHOD, ExecutorchSession, Methods, planned_memory, write_executorch
from pocketfleet.export.int8_predict import compare_int8, quantised_program
from pocketfleet.export.program import trace_programs
from pocketfleet.export.signature import METHODS
from pocketfleet.training.examples import Examples
from pocketfleet.training.task import initial_model
from pocketfleet.training.train_step import StepSettings, predict
from pocketfleet.training.weights import model_weights


# Torch chooses another convolution kernel from 16 examples on.
@pytest.mark.parametrize(
    ("make_task", "max_batch"),
    [
        (toy.dense_toy, 1),
        (toy.pooled_toy, 16),
        pytest.param(toy.normalised_toy, 15, marks=pytest.mark.long),
    ],
)
def test_int8_is_near_for_every_batch(make_task: Callable[[], toy.Toy], max_batch: int, tmp_path: Path) -> None:
    task, path = make_task(), tmp_path / "model.pte"
    model, examples = initial_model(task, seed=0), task.train_examples()
    weights = model_weights(model, examples.x[:3])
    programs = trace_programs(
        task,
        model,
        weights,
        settings=StepSettings(),
        examples=examples,
        max_batch=max_batch,
        table=decomposition_table("executorch"),
    )
    program = quantised_program(model, weights, Examples(examples.x[:16], examples.y[:16]), max_batch)
    write_executorch(programs, path, delegate_predict=True, int8=program)
    methods = Methods(path, [INT8_METHOD])
    for batch in {max_batch, 1, max_batch // 2 or 1, max_batch}:
        (found,) = methods.run(INT8_METHOD, [examples.x[:batch].contiguous()])
        expected = predict(model, weights, examples.x[:batch])
        # 8 bits leave 1/256 of a range; some layers add up.
        assert float((found - expected).norm() / expected.norm()) < 0.05
    accuracy = compare_int8(path, task, model, weights, examples, max_batch=max_batch)
    assert accuracy.examples == len(examples)
    assert 1e-5 < accuracy.output_error < 0.05
    assert accuracy.float32.keys() == accuracy.int8.keys() == {"loss", "accuracy"}
    assert accuracy.int8["loss"] == pytest.approx(accuracy.float32["loss"], rel=0.02)
    assert accuracy.int8["loss"] != accuracy.float32["loss"]
    # The other methods are there and right, and the footprint's arenas are theirs alone.
    session = ExecutorchSession(path, programs.signature, max_batch=max_batch)
    x = examples.x[:max_batch]
    torch.testing.assert_close(session.predict(weights, x), predict(model, weights, x))
    assert set(planned_memory(path)) == set(METHODS)
    assert set(planned_memory(path, methods=[INT8_METHOD])) == {INT8_METHOD}


def test_a_model_that_cannot_be_quantised_is_refused() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) if float(x.sum()) > 0 else x

    task = toy.Toy(Branch, 3)
    model, examples = initial_model(task, seed=0), task.train_examples()
    with pytest.raises(InputError, match="cannot be quantised to int8"):
        quantised_program(model, model_weights(model, examples.x[:3]), examples, 4)
