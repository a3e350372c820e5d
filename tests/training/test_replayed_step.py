"""Steps that are replayed: the bits of those that are not, whatever the task."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pocketfleet.export.session import EagerSession
from pocketfleet.training.examples import Examples
from pocketfleet.training.replayed_step import load_tracer
from pocketfleet.training.task import initial_model, load_task
from pocketfleet.training.train_step import StepSettings, TrainState, TrainStep, hyper_tensors
from pocketfleet.training.weights import model_weights

# Some more than after which a step is traced.
STEPS = 30
HYPER = {"learning_rate": 0.01, "momentum": 0.5, "weight_decay": 0.01, "max_norm": 5.0, "beta1": 0.9, "beta2": 0.9}
HYPER |= {"epsilon": 1e-8}


class Normalised:
    """Batch norm, whose buffers change from step to step, and a convolution that is told apart by layout."""

    name = "normalised"

    def make_model(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(output, target, reduction="none")

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"accuracy": (output.argmax(1) == target).float()}

    def train_examples(self) -> Examples:
        x = torch.arange(64 * 3 * 64, dtype=torch.float32).reshape(64, 3, 8, 8)
        return Examples(torch.sin(x), torch.arange(64) % 5)

    def test_examples(self) -> Examples:
        return self.train_examples()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("task", ["boston", "mnist", "watch", "shakespeare", Normalised()])
def test_bits_are_those_of_the_step_itself(task, optimizer: str) -> None:
    load_tracer()
    task = load_task(task) if isinstance(task, str) else task
    settings = StepSettings(optimizer=optimizer, clipping=True)
    examples = task.train_examples()
    model = initial_model(task, seed=1)
    weights = model_weights(model, examples.take(torch.arange(2)).x)
    hyper = hyper_tensors(settings, HYPER)
    session = EagerSession(task, initial_model(task, seed=1), settings)
    step = TrainStep(model, task.loss, settings)
    replayed = plain = TrainState.start(weights, settings)
    for index in range(STEPS):
        # The last batch of an epoch is smaller.
        few = examples.take(torch.arange(index, index + (3 if index % 5 == 4 else 8)))
        one, replayed = session.train_step(replayed, few.x, few.y, hyper)
        other, plain = step(plain, few.x, few.y, hyper)
        assert torch.equal(one, other)
    assert_same(replayed, plain)


def assert_same(replayed: TrainState, plain: TrainState) -> None:
    for part in ("trainable", "buffers", "optimizer_slots"):
        found, wanted = getattr(replayed, part), getattr(plain, part)
        assert list(found) == list(wanted)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        assert not any(value.requires_grad for value in found.values())


def test_a_step_that_is_traced_at_a_devices_beginning_tells_its_anchor_from_its_weights() -> None:
    load_tracer()
    task, settings = load_task("boston"), StepSettings(proximal=True, clipping=True)
    few = task.train_examples().take(torch.arange(8))
    model = initial_model(task, seed=1)
    start = TrainState.start(model_weights(model, few.x), settings)
    assert all(start.anchor[name] is value for name, value in start.trainable.items())
    hyper = hyper_tensors(settings, {**HYPER, "proximal_mu": 5.0})
    session = EagerSession(task, initial_model(task, seed=1), settings)
    step = TrainStep(model, task.loss, settings)
    for _ in range(STEPS):
        session.train_step(start, few.x, few.y, hyper)
    replayed = plain = start
    for _ in range(3):
        _, replayed = session.train_step(replayed, few.x, few.y, hyper)
        _, plain = step(plain, few.x, few.y, hyper)
    assert_same(replayed, plain)


SHORT = """
import sys
import torch
from pocketfleet.export.session import EagerSession
from pocketfleet.training.task import initial_model, load_task
from pocketfleet.training.train_step import StepSettings, TrainState, hyper_tensors
from pocketfleet.training.weights import model_weights

task, settings = load_task("boston"), StepSettings()
few = task.train_examples().take(torch.arange(8))
model = initial_model(task, seed=1)
state = TrainState.start(model_weights(model, few.x), settings)
session = EagerSession(task, model, settings)
for _ in range(60):
    _, state = session.train_step(state, few.x, few.y, hyper_tensors(settings, {"learning_rate": 1e-6}))
assert "torch._dynamo" not in sys.modules
"""


def test_a_short_run_does_not_load_what_tracing_needs() -> None:
    subprocess.run([sys.executable, "-c", SHORT], check=True)
