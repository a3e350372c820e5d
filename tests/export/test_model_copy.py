"""A copy has the weights that it was given, and the model keeps its own."""

import torch
import toy

from pocketfleet.export.model_copy import model_copy
from pocketfleet.training.task import initial_model
from pocketfleet.training.train_step import predict
from pocketfleet.training.weights import model_weights


def test_a_copy_computes_with_the_given_weights() -> None:
    task = toy.normalised_toy()
    model, x = initial_model(task, seed=0), task.train_examples().x
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = model_weights(initial_model(task, seed=1), x[:3])
    weights.buffers["1.running_mean"] += 0.5
    twin = model_copy(model, weights)
    assert not twin.training
    torch.testing.assert_close(twin(x), predict(model, weights, x), rtol=0, atol=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
