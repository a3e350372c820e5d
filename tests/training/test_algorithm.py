"""What is an algorithm; each packaged one has its own file in ``algorithms``."""

from dataclasses import dataclass, replace

import pytest
import torch

from pocketfleet.training.algorithm import Algorithm, ClientTerms, Trained
from pocketfleet.training.algorithms.fedavg import FedAvg
from pocketfleet.training.server_optimizer import ServerSgd
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Halved(FedAvg):
    """A user's own: each device reports half of its update."""

    name: str = "halved"

    def client_update(
        self,
        trained: Trained,
        broadcast: Tensors,  # noqa: ARG002
        device_state: Tensors,
    ) -> tuple[Update, Tensors]:
        halved = {name: value / 2 for name, value in trained.update.delta.items()}
        return replace(trained.update, delta=halved), device_state


def test_one_of_ones_own_is_an_algorithm() -> None:
    own = Halved(server_optimizer=ServerSgd())
    assert isinstance(own, Algorithm)
    trained = Trained(update=Update({"w": torch.tensor([4.0])}, {}), steps=torch.tensor(1.0), hyper={})
    assert own.client_update(trained, {}, {})[0].delta["w"].tolist() == [2.0]


@pytest.mark.parametrize("missing", ["device_init", "broadcast", "weighting", "name"])
def test_what_lacks_a_part_is_none(missing: str) -> None:
    parts = {
        "name": "almost",
        "weighting": "devices",
        **dict.fromkeys(["step_settings", "init", "device_init", "broadcast", "client_start"], len),
        **dict.fromkeys(["client_update", "server_update"], len),
    }
    assert isinstance(type("Whole", (), parts)(), Algorithm)
    del parts[missing]
    assert not isinstance(type("Almost", (), parts)(), Algorithm)
    assert not isinstance(ServerSgd(), Algorithm)


def test_a_device_adds_nothing_unless_told() -> None:
    assert ClientTerms() == ClientTerms(hyper={}, correction=None, start={}, personal={}, personal_hyper={})
