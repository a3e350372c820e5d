"""A task small enough to work out by hand: ``y = w x`` with one weight, squared error, four users."""

import torch
from torch import nn

from pocketfleet.device_sim.client import Client
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.export.session import EagerSession
from pocketfleet.training.algorithms.fedavg import FedAvg
from pocketfleet.training.examples import Examples
from pocketfleet.training.server_optimizer import ServerSgd
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["ALGORITHM", "TinyTask", "make_client", "tiny_data", "tiny_weights"]

ALGORITHM = FedAvg(server_optimizer=ServerSgd())


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w * x


class TinyTask:
    """User ``d`` holds ``d + 1`` examples with x = 1 and y = d + 1; user 2's targets may be made infinite."""

    name = "tiny"

    def __init__(self, *, broken: bool = False, users: int = 4) -> None:
        self._broken, self._users = broken, users

    def make_model(self) -> nn.Module:
        return Line()

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).square()

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Tensors:
        return {"mse": (output - target).square()}

    def device_examples(self, device: int) -> Examples:
        count = device + 1
        target = torch.inf if self._broken and device == 2 else float(device + 1)
        return Examples(torch.ones(count), torch.full((count,), target))

    def train_examples(self) -> Examples:
        parts = [self.device_examples(device) for device in range(self._users)]
        return Examples(torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts]))

    def test_examples(self) -> Examples:
        return Examples(torch.ones(2), torch.tensor([1.0, 3.0]))


def tiny_data(task: TinyTask, *, devices: int = 4) -> DeviceData:
    return DeviceData(task, kind="natural", devices=devices, seed=0, alpha=1.0, examples_per_device=0)


def tiny_weights(w: float = 0.0) -> Weights:
    return Weights(trainable={"w": torch.tensor(w)}, buffers={}, frozen={})


def make_client(*, broken: bool = False) -> Client:
    task = TinyTask(broken=broken)
    return Client(
        session=EagerSession(task, task.make_model(), StepSettings()),
        data=tiny_data(task),
        algorithm=ALGORITHM,
        settings=StepSettings(),
        hyper={"learning_rate": 0.25},
        batch_size=8,
    )
