"""Steps that are replayed: the bits of those that are not, whatever the task."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pocketfleet.export.session import EagerSession
from pocketfleet.training.examples import Examples
from pocketfleet.training.replayed_step import ReplayedStep
from pocketfleet.training.task import initial_model, load_task
from pocketfleet.training.train_step import StepSettings, TrainState, TrainStep, hyper_tensors
from pocketfleet.training.weights import model_weights

# Replayed from the fourth of the same shapes on.
STEPS = 20
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


def test_a_step_that_is_recorded_at_a_devices_beginning_tells_its_anchor_from_its_weights() -> None:
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


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_the_first_step_of_each_device_is_replayed_with_the_optimizers_slots_in_their_places(optimizer: str) -> None:
    task, settings = load_task("boston"), StepSettings(optimizer=optimizer)
    few = task.train_examples().take(torch.arange(8))
    model = initial_model(task, seed=1)
    start = TrainState.start(model_weights(model, few.x), settings)
    hyper = hyper_tensors(settings, HYPER)
    session = EagerSession(task, initial_model(task, seed=1), settings)
    step = TrainStep(model, task.loss, settings)
    for _device in range(6):
        replayed = plain = start
        for _ in range(3):
            _, replayed = session.train_step(replayed, few.x, few.y, hyper)
            _, plain = step(plain, few.x, few.y, hyper)
        for name, value in plain.optimizer_slots.items():
            assert torch.equal(replayed.optimizer_slots[name], value)


class Drops(Normalised):
    name = "drops"

    def make_model(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 5))


class Writing(nn.Module):
    """Writes to its own activations, to a view of one, and holds a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 5)
        self.scale = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(4, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.conv(x).mul_(self.scale)
        hidden[:, 1] += hidden[:, 0].detach()
        output: torch.Tensor = self.linear(F.relu(hidden, inplace=True).flatten(1))
        return output


class InPlace(Normalised):
    name = "in place"

    def make_model(self) -> nn.Module:
        return Writing()


class Changing(nn.Module):
    """Another function at every call, or one that goes by values in Python."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.linear, self.by, self.calls = nn.Linear(3 * 64, 5), by, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        seen = {
            "calls": lambda: float(self.calls),
            "item": lambda: x.mean().item(),
            "numpy": lambda: float(x.detach().numpy().mean()),
        }
        output: torch.Tensor = self.linear(x.flatten(1)) * (1.0 + seen[self.by]())
        return output


class Changes(Normalised):
    name = "changes"

    def __init__(self, by: str) -> None:
        self.by = by

    def make_model(self) -> nn.Module:
        return Changing(self.by)


def steps(task, settings: StepSettings, **made: torch.memory_format) -> tuple[EagerSession, TrainState, TrainState]:
    """A session after its steps on batches of one size, its state, and that of a session that replays nothing."""
    examples, hyper = task.train_examples(), hyper_tensors(settings, HYPER)
    model = initial_model(task, seed=1)
    start = TrainState.start(model_weights(model, examples.take(torch.arange(2)).x), settings)
    session, plain = (EagerSession(task, initial_model(task, seed=1), settings, **made) for _ in range(2))
    one = other = start
    for index in range(STEPS):
        few = examples.take(torch.arange(index, index + 8))
        loss, one = session.train_step(one, few.x, few.y, hyper, dropout_seed=index)
        # Never the same shapes twice.
        plain._replayed = ReplayedStep(plain._without_draws, laid=plain._laid)
        wanted, other = plain.train_step(other, few.x, few.y, hyper, dropout_seed=index)
        assert torch.equal(loss, wanted)
    return session, one, other


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("task", [Normalised(), InPlace(), load_task("mnist")])
def test_bits_are_the_same_however_images_lie_in_memory(task, layout: torch.memory_format) -> None:
    session, replayed, plain = steps(task, StepSettings(momentum=True, weight_decay=True), memory_format=layout)
    assert session._replayed.num_programs == 1
    assert_same(replayed, plain)


@pytest.mark.parametrize("task", [Drops(), Changes("calls"), Changes("item"), Changes("numpy")])
def test_a_step_that_is_another_one_each_time_is_not_replayed(task) -> None:
    session, found, plain = steps(task, StepSettings())
    assert session._replayed.num_programs == 0
    assert_same(found, plain)


LIGHT = """
import sys
import torch
from pocketfleet.export.session import EagerSession
from pocketfleet.training.replayed_step import ReplayedStep
from pocketfleet.training.task import initial_model, load_task
from pocketfleet.training.train_step import StepSettings, TrainState, hyper_tensors
from pocketfleet.training.weights import model_weights

task, settings = load_task("boston"), StepSettings()
few = task.train_examples().take(torch.arange(8))
model = initial_model(task, seed=1)
state = TrainState.start(model_weights(model, few.x), settings)
session = EagerSession(task, model, settings)
for _ in range(6):
    _, state = session.train_step(state, few.x, few.y, hyper_tensors(settings, {"learning_rate": 1e-6}))
assert session._replayed.num_programs == 1
assert "torch._dynamo" not in sys.modules
assert "sympy" not in sys.modules
"""


def test_replaying_does_not_load_torchs_compiler() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True)
