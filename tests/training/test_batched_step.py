import numpy as np
import pytest
import torch
from torch import nn

from pocketfleet.training.batched_step import BatchedStep, stacked_state
from pocketfleet.training.step_settings import Optimizer, StepSettings, hyper_tensors
from pocketfleet.training.train_step import TrainState, TrainStep
from pocketfleet.training.weights import Weights

HYPER = {
    "learning_rate": 0.01,
    "momentum": 0.9,
    "beta1": 0.9,
    "beta2": 0.999,
    "epsilon": 1e-8,
    "weight_decay": 0.1,
    "proximal_mu": 0.1,
    "max_norm": 1.0,
}


def squares(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).square().mean(dim=-1)


@pytest.mark.parametrize(("sizes", "masked"), [((5, 5, 5, 5), True), ((5, 3, 1, 5), True), ((5, 3, 3, 5), False)])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_mapped_step_stays_on_the_device_of_the_weights(
    optimizer: Optimizer, sizes: tuple[int, ...], masked: bool
) -> None:
    # Torch's device of shapes without values is there on every machine, and as strict about others' tensors as a GPU.
    meta = torch.device("meta")
    settings = StepSettings(
        optimizer=optimizer,
        momentum=optimizer == "sgd",
        weight_decay=True,
        proximal=True,
        clipping=True,
        correction=True,
    )
    model = nn.Linear(3, 2)
    trainable = {name: value.detach().to(meta) for name, value in model.named_parameters()}
    start = TrainState.start(Weights(trainable=trainable, buffers={}, frozen={}), settings)
    hyper = {name: value.to(meta) for name, value in hyper_tensors(settings, HYPER).items()}
    step = BatchedStep(TrainStep(model, squares, settings), masked=masked)
    x, y = torch.empty(4, 5, 3, device=meta), torch.empty(4, 5, 2, device=meta)
    losses, after = step(stacked_state(start, 4), x, y, np.array(sizes), hyper)
    assert (losses.device, losses.shape) == (meta, (4,))
    assert after.optimizer_slots.keys() == start.optimizer_slots.keys() != set()
    for kept in (after.trainable, after.optimizer_slots, after.anchor, after.correction):
        assert {value.device for value in kept.values()} == {meta}
    assert all(value.shape == (4, *start.trainable[name].shape) for name, value in after.trainable.items())
